//! An OCI image archive without an engine: an [image
//! layout](https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md) in a tar, byte for byte the same
//! for the same input.
//!
//! ```text
//! oci-layout, index.json ─> blobs/sha256/manifest ─> config, layer
//! ```

use anyhow::Result;
use serde_json::{Value, json};
use tar::Builder;

use super::layer::{Layer, append_file};
use crate::shell;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image about to be packed.
pub(crate) struct Image {
    /// The full name, such as `culvert.dev/culvert:0.1.0`.
    pub(crate) name: String,
    /// What a container of it runs.
    pub(crate) entrypoint: Vec<String>,
    /// More of the configuration, such as labels.
    pub(crate) labels: Vec<(String, String)>,
    /// Its files.
    pub(crate) files: Layer,
}

/// A blob, stored under its digest.
struct Blob {
    media_type: &'static str,
    digest: String,
    content: Vec<u8>,
}

impl Image {
    /// The archive, for `ctr images import` and whatever else reads an OCI layout; and the manifest's digest.
    pub(crate) fn to_archive(&self) -> Result<(Vec<u8>, String)> {
        let layer = Blob::new(LAYER, self.files.to_tar()?);
        let config = Blob::json(CONFIG, &self.config(&layer))?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
        });
        let manifest = Blob::json(MANIFEST, &manifest)?;
        let index = self.index(&manifest);
        let digest = manifest.digest.clone();
        let archive = pack(&serde_json::to_vec(&index)?, [config, layer, manifest])?;
        Ok((archive, digest))
    }

    fn config(&self, layer: &Blob) -> Value {
        let labels: serde_json::Map<_, _> = self
            .labels
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().into()))
            .collect();
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Labels": labels,
                "User": "0:0",
                "WorkingDir": "/",
            },
            "rootfs": { "type": "layers", "diff_ids": [layer.digest] },
        })
    }

    fn index(&self, manifest: &Blob) -> Value {
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let mut descriptor = manifest.descriptor();
        descriptor["platform"] = json!({ "architecture": architecture(), "os": "linux" });
        descriptor["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": tag,
        });
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor] })
    }
}

/// This machine's, as [Go](https://go.dev/doc/install/source#environment) and so the specification call it: what is in
/// an image was built for it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Blob {
    fn new(media_type: &'static str, content: Vec<u8>) -> Self {
        Self {
            media_type,
            digest: shell::digest(&content),
            content,
        }
    }

    fn json(media_type: &'static str, value: &Value) -> Result<Self> {
        Ok(Self::new(media_type, serde_json::to_vec(value)?))
    }

    fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.content.len(),
        })
    }

    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }
}

fn pack(index: &[u8], mut blobs: [Blob; 3]) -> Result<Vec<u8>> {
    blobs.sort_by(|one, other| one.digest.cmp(&other.digest));
    let mut tar = Builder::new(Vec::new());
    for blob in &blobs {
        append_file(&mut tar, &blob.path(), 0o644, &blob.content)?;
    }
    append_file(&mut tar, "index.json", 0o644, index)?;
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
    append_file(&mut tar, "oci-layout", 0o644, layout)?;
    Ok(tar.into_inner()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    fn image(files: Layer) -> Image {
        Image {
            name: "culvert.dev/test:7".into(),
            entrypoint: vec!["/run".into()],
            labels: vec![("of".into(), "test".into())],
            files,
        }
    }

    fn unpack(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut tar = tar::Archive::new(archive);
        let entries = tar.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 0);
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        });
        entries.collect()
    }

    #[test]
    fn the_order_in_which_files_are_added_changes_no_byte() {
        let (one, other) = (Layer::default(), Layer::default());
        let one = one.file("run", 0o755, vec![1; 700]).link("sh", "run");
        let other = other.link("sh", "run").file("run", 0o755, vec![1; 700]);
        let archive = image(one).to_archive().unwrap();
        assert_eq!(archive, image(other).to_archive().unwrap());
        let changed = Layer::default()
            .link("sh", "run")
            .file("run", 0o755, vec![2; 700]);
        assert_ne!(archive, image(changed).to_archive().unwrap());
    }

    #[test]
    fn every_blob_is_what_its_descriptor_says() {
        let files = Layer::default()
            .directory("etc", 0o755)
            .file("etc/a", 0o600, b"a".into());
        let (archive, digest) = image(files).to_archive().unwrap();
        let archive = unpack(&archive);
        let json = |content: &[u8]| serde_json::from_slice::<Value>(content).unwrap();
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let content = &archive[&format!("blobs/{}", digest.replace(':', "/"))];
            assert_eq!(descriptor["size"], content.len());
            assert_eq!(digest, shell::digest(content));
            content
        };
        assert!(archive.contains_key("oci-layout"));
        let index = json(&archive["index.json"]);
        assert_eq!(
            index["manifests"][0]["annotations"]["io.containerd.image.name"],
            "culvert.dev/test:7"
        );
        assert_eq!(index["manifests"][0]["digest"], *digest);
        let manifest = json(blob(&index["manifests"][0]));
        let config = json(blob(&manifest["config"]));
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            manifest["layers"][0]["digest"]
        );
        assert_eq!(config["config"]["Entrypoint"], json!(["/run"]));
        let layer = unpack(blob(&manifest["layers"][0]));
        assert_eq!(layer["etc/a"], b"a");
        assert!(
            config.get("created").is_none(),
            "a time of day would change the digest"
        );
    }
}
