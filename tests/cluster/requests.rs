//! Certificate requests as anybody may make them, each with an identity that the API server has checked itself.

use std::collections::BTreeMap;
use std::fs;
use std::iter;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use culvert_tests::cluster::{CULVERT_NAMESPACE, Cluster, Machine};
use culvert_tests::command;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, SanType};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const LABEL: &str = "culvert.test/requests";

/// Who asks.
pub(crate) struct Identity<'a> {
    cluster: &'a Cluster,
    kubeconfig: PathBuf,
}

/// What is asked for.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) name: String,
    signer: &'static str,
    common_name: &'static str,
    organizations: Vec<&'static str>,
    usages: Vec<&'static str>,
    names: Vec<SanType>,
    extensions: Vec<CustomExtension>,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) created: OffsetDateTime,
    pub(crate) decision: Decision,
    pub(crate) issued: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    None,
    Approved(OffsetDateTime),
    /// With this message.
    Denied(String),
}

/// The requests of one test, gone with it.
pub(crate) struct Requests<'a> {
    cluster: &'a Cluster,
    group: &'static str,
}

impl<'a> Identity<'a> {
    /// One that the cluster was made with: `admin`, `kubelet-edge-1`.
    pub(crate) fn of(cluster: &'a Cluster, name: &str) -> Self {
        let kubeconfig = cluster.directory().kubeconfig(name);
        Self {
            cluster,
            kubeconfig,
        }
    }

    /// How it reaches the API server.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A service account, by a token as the pod has one, or one of no pod.
    pub(crate) fn service_account(
        cluster: &'a Cluster,
        account: (&str, &str),
        pod: Option<&str>,
    ) -> Self {
        let kubeconfig = cluster.service_account_kubeconfig(account, pod).unwrap();
        Self {
            cluster,
            kubeconfig,
        }
    }
}

impl Request {
    /// As the agent of that machine asks.
    pub(crate) fn agent(name: &str, machine: &Machine) -> Self {
        Self::agent_of(name, machine.name(), &machine.addresses())
    }

    /// As the agent of a node with these addresses asks.
    pub(crate) fn agent_of(name: &str, node: &str, addresses: &[IpAddr]) -> Self {
        let addresses = addresses.iter().copied().map(SanType::IpAddress);
        Self {
            name: name.to_owned(),
            signer: "kubernetes.io/kube-apiserver-client",
            common_name: "tunnel-agent-client",
            organizations: vec!["openyurt:yurttunnel"],
            usages: vec!["digital signature", "key encipherment", "client auth"],
            names: iter::once(dns(node)).chain(addresses).collect(),
            extensions: Vec::new(),
        }
    }

    /// As a server asks.
    pub(crate) fn server(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            signer: "kubernetes.io/kubelet-serving",
            common_name: "system:node:tunnel-server",
            organizations: vec!["system:nodes"],
            usages: vec!["digital signature", "key encipherment", "server auth"],
            names: vec![dns("x-tunnel-server-svc")],
            extensions: Vec::new(),
        }
    }

    /// One more name.
    pub(crate) fn also(mut self, name: SanType) -> Self {
        self.names.push(name);
        self
    }

    /// To be a CA.
    pub(crate) fn of_authority(mut self) -> Self {
        // RFC 5280, 4.2.1.9: a sequence of `cA`, which is true.
        let constraints = vec![0x30, 3, 1, 1, 0xff];
        let extension = CustomExtension::from_oid_content(&[2, 5, 29, 19], constraints);
        self.extensions.push(extension);
        self
    }

    /// For another user.
    pub(crate) fn named(mut self, common_name: &'static str) -> Self {
        self.common_name = common_name;
        self
    }

    pub(crate) fn with_usages(mut self, usages: &[&'static str]) -> Self {
        self.usages = usages.to_vec();
        self
    }

    /// For other organisations.
    pub(crate) fn of(mut self, organizations: &[&'static str]) -> Self {
        self.organizations = organizations.to_vec();
        self
    }

    /// The PEM text, in the base64 that the API wants it in.
    fn encoded(&self, key: &KeyPair) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for organization in &self.organizations {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *organization);
        }
        params
            .distinguished_name
            .push(DnType::CommonName, self.common_name);
        params.subject_alt_names.clone_from(&self.names);
        params.custom_extensions.clone_from(&self.extensions);
        let pem = params.serialize_request(key).unwrap().pem().unwrap();
        let mut openssl = Command::new("openssl");
        command::output_of(openssl.args(["base64", "-A"]), &pem).unwrap()
    }
}

pub(crate) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

impl<'a> Requests<'a> {
    pub(crate) fn new(cluster: &'a Cluster, group: &'static str) -> Self {
        Self { cluster, group }
    }

    /// Asks for it once.
    pub(crate) fn ask(&self, who: &Identity<'_>, request: &Request) -> Result<()> {
        self.ask_often(who, request, 1)
    }

    /// Asks for the same so many times, one right after the other.
    pub(crate) fn ask_often(
        &self,
        who: &Identity<'_>,
        request: &Request,
        times: u32,
    ) -> Result<()> {
        let object = self.object(request, &KeyPair::generate()?);
        let one = |number| {
            let mut object = object.clone();
            object["metadata"]["name"] = format!("{}-{number:03}", request.name).into();
            object
        };
        let items: Vec<_> = (0..times).map(one).collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        let file = self
            .cluster
            .directory()
            .root()
            .join(format!("{}.json", request.name));
        fs::write(&file, list.to_string())?;
        // The last one that is named counts.
        let kubectl = who.cluster.kubectl_launch()?;
        let kubectl = kubectl.arg("--kubeconfig").arg(&who.kubeconfig);
        let mut create = kubectl
            .words("create --validate=false -f")
            .arg(file)
            .start()?;
        create.succeed(crate::stage::PATIENCE).map(drop)
    }

    /// The object to create.
    pub(crate) fn object(&self, request: &Request, key: &KeyPair) -> Value {
        json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": { "name": request.name, "labels": { LABEL: self.group } },
            "spec": {
                "signerName": request.signer,
                "usages": request.usages,
                "expirationSeconds": 86_400,
                "request": request.encoded(key),
            },
        })
    }

    /// By the object's name.
    pub(crate) fn outcomes(&self) -> Result<BTreeMap<String, Outcome>> {
        let words = format!("certificatesigningrequests -l {LABEL}={}", self.group);
        let requests = self.cluster.get(&words)?;
        let requests = requests["items"].as_array().into_iter().flatten();
        let name = |one: &Value| one["metadata"]["name"].as_str().unwrap().to_owned();
        Ok(requests
            .map(|one| (name(one), Outcome::read(one)))
            .collect())
    }
}

impl Drop for Requests<'_> {
    fn drop(&mut self) {
        let of_group = format!("{LABEL}={}", self.group);
        let words = ["delete", "certificatesigningrequests", "-l", &of_group];
        // They are gone at once; kubectl would look for five of them in a second.
        let words = words.into_iter().chain(["--wait=false"]);
        if let Err(error) = self.cluster.kubectl(words) {
            eprintln!("certificate requests stay: {error:#}");
        }
    }
}

impl Outcome {
    fn read(request: &Value) -> Self {
        let status = &request["status"];
        let condition = &status["conditions"][0];
        let decision = match condition["type"].as_str() {
            None => Decision::None,
            Some("Approved") => Decision::Approved(moment(&condition["lastUpdateTime"])),
            Some("Denied") => Decision::Denied(condition["message"].as_str().unwrap().to_owned()),
            Some(other) => panic!("{other}: {request}"),
        };
        Self {
            created: moment(&request["metadata"]["creationTimestamp"]),
            decision,
            issued: status["certificate"].is_string(),
        }
    }
}

fn moment(value: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(value.as_str().unwrap(), &Rfc3339).unwrap()
}

/// The pod of the agent on a machine.
pub(crate) fn agent_pod(cluster: &Cluster, machine: &Machine) -> String {
    let words = format!("pods -n {CULVERT_NAMESPACE} -l app.kubernetes.io/name=culvert-agent");
    let pods = cluster.get(&words).unwrap();
    let mut pods = pods["items"].as_array().unwrap().iter();
    let pod = pods.find(|pod| {
        pod["spec"]["nodeName"] == machine.name() && pod["metadata"]["deletionTimestamp"].is_null()
    });
    pod.unwrap()["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned()
}
