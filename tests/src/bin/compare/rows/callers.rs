//! Who sees whom.

use anyhow::{Context as _, Result};

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
    let said = caller.arg(url).start()?.succeed(PATIENCE)?;
    let (status, size) = said.trim().split_once('/').context("a status")?;
    Ok(match status {
        "200" => format!("**200**, with {size} bytes of its pods"),
        status => status.into(),
    })
}

/// What curl tells of the certificate when it is told to be verbose.
fn certificate(stage: &Stage) -> Result<String> {
    let line = format!(
        "--verbose --stderr - --output /dev/null https://{}:10250/healthz",
        stage.node_address()
    );
    let said = curl(stage, &line).start()?.succeed(PATIENCE)?;
    let named = |what: &str| {
        let mut lines = said.lines();
        lines.find_map(|line| line.split_once(what).map(|(_, name)| name.to_owned()))
    };
    let subject = named("subject: ").context("no subject was seen")?;
    let issuer = named("issuer: ").context("no issuer was seen")?;
    Ok(format!("`{subject}` of issuer `{issuer}`"))
}
