//! What takes from this process what its capabilities would allow: AppArmor's profiles and SELinux's types, which
//! answer with the same `EACCES` as file modes do.

use std::{fmt, fs};

/// AppArmor's own file, and the one that it shares with SELinux on kernels before 5.8 and where it is alone.
/// [LSM documentation](https://docs.kernel.org/admin-guide/LSM/index.html)
const LABELS: [&str; 2] = [
    "/proc/self/attr/apparmor/current",
    "/proc/self/attr/current",
];

/// Who confines this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confinement {
    /// AppArmor, by this profile.
    AppArmor(String),
    /// SELinux, by this type.
    SeLinux(String),
}

impl Confinement {
    /// `None` if nobody does, or nobody says so.
    pub(super) fn of_this_process() -> Option<Self> {
        LABELS
            .iter()
            .find_map(|file| Self::parse(&fs::read_to_string(file).ok()?))
    }

    /// AppArmor writes `name (mode)`, SELinux `user:role:type:level`.
    fn parse(label: &str) -> Option<Self> {
        let label = label.trim_end_matches(['\0', '\n']);
        if let Some(profile) = label.strip_suffix(" (enforce)") {
            return Some(Self::AppArmor(profile.to_owned()));
        }
        let kind = label.split(':').nth(2)?;
        Some(Self::SeLinux(kind.to_owned()))
    }

    fn way_out(&self) -> &'static str {
        match self {
            Self::AppArmor(_) => {
                "run it without a profile (Kubernetes: securityContext.appArmorProfile: { type: Unconfined } of the \
                 container; systemd: AppArmorProfile=unconfined); dmesg says what was denied"
            }
            Self::SeLinux(_) => {
                "run it with a type that may use bpf(2) and bpffs (Kubernetes: securityContext.seLinuxOptions: \
                 { type: spc_t } of the container); ausearch -m avc -ts recent says what was denied"
            }
        }
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (who, by) = match self {
            Self::AppArmor(profile) => ("AppArmor", format!("the profile {profile}")),
            Self::SeLinux(kind) => ("SELinux", format!("the type {kind}")),
        };
        let way_out = self.way_out();
        write!(
            f,
            "{who} confines this process by {by}, whatever its capabilities are: {way_out}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_say_who_confines() {
        let apparmor = Confinement::parse("cri-containerd.apparmor.d (enforce)\n");
        let profile = "cri-containerd.apparmor.d".to_owned();
        assert_eq!(apparmor, Some(Confinement::AppArmor(profile)));
        let selinux = Confinement::parse("system_u:system_r:container_t:s0:c12,c34\0");
        assert_eq!(
            selinux,
            Some(Confinement::SeLinux("container_t".to_owned()))
        );
        for nobody in ["unconfined\n", "cri-containerd.apparmor.d (complain)\n", ""] {
            assert_eq!(Confinement::parse(nobody), None, "{nobody}");
        }
    }
}
