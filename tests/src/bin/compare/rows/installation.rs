//! What a person does.

use anyhow::Result;

use super::Row;
use crate::stage::Stage;

pub(crate) const STEPS: Row = Row {
    name: "to do besides `kubectl apply`",
    meaning: "what the installation waited for until somebody did it; certificate signing requests (CSR) are counted. Yurt-Tunnel's need nobody where \
              OpenYurt's yurt-manager runs, which approves them.",
    measure: steps,
    always: false,
};

#[expect(clippy::unnecessary_wraps, reason = "as the other rows are measured")]
fn steps(stage: &Stage) -> Result<String> {
    Ok(match &stage.steps[..] {
        [] => "nothing".into(),
        steps => steps.join("; "),
    })
}
