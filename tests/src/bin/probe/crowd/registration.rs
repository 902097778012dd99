//! Registered nodes without an enrolment each: the server reads what is in its state directory.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use time::OffsetDateTime;
use tunnel_user::standalone::{Registration, State};

/// The first node's address. Nobody dials these.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 160, 0, 1);

/// Adds the nodes to the server's state, which is made if there is none.
pub(super) fn register(state_dir: &Path, count: u32) -> Result<()> {
    let now = OffsetDateTime::now_utc();
    State::create(state_dir, now)?;
    for number in 0..count {
        let name = format!("crowd-{number:05}");
        let file = state_dir.join("nodes").join(format!("{name}.json"));
        let registration = Registration {
            name: name.parse()?,
            addresses: vec![Ipv4Addr::from_bits(FIRST.to_bits() + number).into()],
            enrolment: format!("crowd{number:05}").parse()?,
            enrolled_at: now,
            gate_policy: None,
        };
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&file)
            .with_context(|| format!("create {}", file.display()))?;
        file.write_all(&serde_json::to_vec(&registration)?)?;
    }
    Ok(())
}
