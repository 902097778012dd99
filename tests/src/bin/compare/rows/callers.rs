//! Who sees whom.

use anyhow::{Context as _, Result};
use culvert_tests::Launch;

use super::Row;
use crate::clients::{PATIENCE, curl};
use crate::stage::Stage;

pub(crate) const NOBODY: Row = Row {
    name: "a caller without any certificate asks for `/pods`",
    meaning: "`https://<node IP>:10250/pods` as uid nobody on the control plane. 401 is the kubelet's answer to strangers.",
    measure: nobody,
    always: false,
};

pub(crate) const CERTIFICATE: Row = Row {
    name: "the certificate that a caller sees",
    meaning: "at port 10250 of the node's IP; that of the kubelet itself, or of somebody in between.",
    measure: certificate,
    always: false,
};

fn nobody(stage: &Stage) -> Result<String> {
    let line = "--reuid=nobody --clear-groups curl --silent --show-error --insecure \
                --output /dev/null --write-out %{http_code}/%{size_download}";
    let caller = stage.cluster.control_plane().launch("setpriv").words(line);
    let url = format!("https://{}:10250/pods", stage.node_address());
    asked(&caller.arg(url))
}

/// What a caller has got who prints the answer's status and its size.
pub(super) fn asked(caller: &Launch) -> Result<String> {
    let said = caller.start()?.succeed(PATIENCE)?;
    let (status, size) = said.trim().split_once('/').context("a status")?;
    Ok(match status {
        "200" => format!("**200**, with {size} bytes of its pods"),
        status => status.into(),
    })
}

fn certificate(stage: &Stage) -> Result<String> {
    let line = format!(
        "--verbose --stderr - --output /dev/null https://{}:10250/healthz",
        stage.node_address()
    );
    let said = curl(stage, &line).start()?.succeed(PATIENCE)?;
    let (subject, issuer) = (seen(&said, "subject")?, seen(&said, "issuer")?);
    Ok(format!("`{subject}` of issuer `{issuer}`"))
}

/// That part of the certificate of which curl tells when it is told to be verbose.
pub(super) fn seen<'a>(said: &'a str, part: &str) -> Result<&'a str> {
    let mut lines = said.lines();
    let named = format!("{part}: ");
    let seen = lines.find_map(|line| line.split_once(&named));
    let (_, seen) = seen.with_context(|| format!("no {part} was seen"))?;
    Ok(seen)
}
