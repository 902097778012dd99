//! The links that keep the programs attached: made once, pinned, and updated in place by the next
//! server, so that there is no moment without a program.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::{Ebpf, programs::loaded_programs};
use aya_obj::generated::bpf_attach_type;
use tracing::{info, warn};
use tunnel_ebpf::programs;

use super::{
    InstallError,
    host::{Cgroup, Host, Place},
    object,
    pins::{Pins, pin_error, remove_if_there},
};
use crate::sys::bpf;

const ALLOW_MULTI: u32 = 1 << 1;

/// Makes every program of the object the attached one: updates the links that are there, makes
/// those that are not or that hang somewhere else, then removes what other versions left.
///
/// Returns the link of another version's handover, which stays attached beside ours for as long as it is
/// held: what that version's programs have noted of connects under way, it alone finds.
pub(super) fn switch(
    ebpf: &mut Ebpf,
    pins: &Pins,
    host: &Host,
) -> Result<Option<OwnedFd>, InstallError> {
    let mut former_handover = None;
    for program in programs::ALL {
        let pin = pins.link(program);
        if !pin.exists()
            && let Some(older) = pins.older_link(program)
        {
            if program == programs::HANDOVER {
                let link = bpf::open_pinned(&older).map_err(pin_error("open", &older))?;
                former_handover = Some(link);
            } else {
                fs::rename(&older, &pin).map_err(pin_error("take over", &older))?;
            }
        }
        let place = host.place(program);
        let updated = pin.exists() && update(ebpf, program, &pin, place)?;
        if !updated {
            attach(ebpf, program, &pin, place)?;
        }
    }
    for directory in pins.remove_other_versions()? {
        info!(?directory, "removed the maps of another version");
    }
    Ok(former_handover)
}

/// What is attached by a pinned link; `None` without a link.
pub(super) fn attached(pins: &Pins, program: &str) -> io::Result<Option<bpf::Link>> {
    match bpf::open_pinned(&pins.link(program)) {
        Ok(link) => bpf::link(&link).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts the program into the pinned link. False if the link is of no use and was removed.
fn update(
    ebpf: &Ebpf,
    program: &'static str,
    pin: &Path,
    place: Place<'_>,
) -> Result<bool, InstallError> {
    let link: OwnedFd = bpf::open_pinned(pin).map_err(pin_error("open", pin))?;
    let useless = match bpf::link(&link) {
        Ok(info) if info.place_id == 0 => Some("what it was attached to is gone"),
        Ok(info) if info.place_id != place.id() => Some("it is attached somewhere else"),
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Some("it is no link of ours"),
        Err(error) => return Err(attach_error(program, place)(error)),
    };
    let useless = match useless {
        Some(reason) => Some(reason),
        None => match bpf::update_link(&link, object::program_fd(ebpf, program)?) {
            Ok(()) => None,
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {
                Some("what it was attached to is gone")
            }
            Err(error) => return Err(attach_error(program, place)(error)),
        },
    };
    let Some(reason) = useless else {
        return Ok(true);
    };
    warn!(program, reason, %place, "the pinned link is replaced by a new one");
    remove_if_there(pin)?;
    Ok(false)
}

fn attach(
    ebpf: &mut Ebpf,
    program: &'static str,
    pin: &Path,
    place: Place<'_>,
) -> Result<(), InstallError> {
    let link = object::attach(ebpf, program, place).map_err(|error| {
        (error.raw_os_error() == Some(libc::EPERM))
            .then(|| match place {
                Place::Cgroup(cgroup) => exclusive(program, cgroup),
                Place::Netns(_) => None,
            })
            .flatten()
            .unwrap_or_else(|| attach_error(program, place)(error))
    })?;
    link.pin(pin)
        .map(drop)
        .map_err(|error| pin_error("pin", pin)(io::Error::other(error)))
}

/// Who holds the hook on this cgroup or, exclusively, on one above it.
fn exclusive(program: &'static str, cgroup: &Cgroup) -> Option<InstallError> {
    let (hook, attach_type) = hook(program)?;
    let own = cgroup.directory.as_fd();
    if let Some(error) = exclusive_at(own, &cgroup.path, hook, attach_type) {
        return Some(error);
    }
    cgroup.path.ancestors().skip(1).find_map(|parent| {
        let directory = fs::File::open(parent).ok()?;
        exclusive_at(directory.as_fd(), parent, hook, attach_type)
    })
}

fn exclusive_at(
    cgroup: BorrowedFd<'_>,
    path: &Path,
    hook: &'static str,
    attach_type: u32,
) -> Option<InstallError> {
    let attached = bpf::attached_programs(cgroup, attach_type).ok()?;
    let id = *attached.program_ids.first()?;
    (attached.flags & ALLOW_MULTI == 0).then(|| InstallError::Exclusive {
        program: program_name(id),
        id,
        cgroup: path.to_owned(),
        hook,
    })
}

/// The hook's name as bpftool takes it, and its number.
fn hook(program: &str) -> Option<(&'static str, u32)> {
    let (name, attach_type) = match program {
        programs::CONNECT4 => ("connect4", bpf_attach_type::BPF_CGROUP_INET4_CONNECT),
        programs::CONNECT6 => ("connect6", bpf_attach_type::BPF_CGROUP_INET6_CONNECT),
        programs::BIND4 => ("bind4", bpf_attach_type::BPF_CGROUP_INET4_BIND),
        programs::BIND6 => ("bind6", bpf_attach_type::BPF_CGROUP_INET6_BIND),
        programs::GETPEERNAME4 => (
            "getpeername4",
            bpf_attach_type::BPF_CGROUP_INET4_GETPEERNAME,
        ),
        programs::GETPEERNAME6 => (
            "getpeername6",
            bpf_attach_type::BPF_CGROUP_INET6_GETPEERNAME,
        ),
        programs::HANDOVER => ("sock_ops", bpf_attach_type::BPF_CGROUP_SOCK_OPS),
        _ => return None,
    };
    Some((name, attach_type as u32))
}

/// Another's program is only open to `CAP_SYS_ADMIN`.
fn program_name(id: u32) -> String {
    let name = loaded_programs()
        .filter_map(Result::ok)
        .find(|info| info.id() == id)
        .and_then(|info| info.name_as_str().map(str::to_owned));
    match name {
        Some(name) => format!("{id} ({name})"),
        None => id.to_string(),
    }
}

fn attach_error(program: &'static str, place: Place<'_>) -> impl FnOnce(io::Error) -> InstallError {
    let place = place.to_string();
    move |source| InstallError::Attach {
        program,
        place,
        source,
    }
}
