//! The embedded programs, and the kernel's copy of them.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::MapInfo,
    programs::{CgroupAttachMode, Program, ProgramError, links::FdLink},
};
use tunnel_ebpf::{INGRESS_GLOBAL, NETNS_COOKIE_GLOBAL, SET_RETVAL_GLOBAL, maps, programs};

use super::{InstallError, LogLevel, host::Features};

pub(super) static PLAIN: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/plain.o"));
static LOG: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/log.o"));

/// What makes a map in the kernel the one that the object wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapShape {
    map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// The shapes of the maps that are pinned, by name.
pub(super) fn shapes() -> Result<HashMap<&'static str, MapShape>, InstallError> {
    let object = aya_obj::Object::parse(PLAIN).map_err(load_error)?;
    maps::ALL
        .into_iter()
        .map(|name| {
            let map = object.maps.get(name).ok_or_else(|| {
                load_error(io::Error::other(format!("the object has no map {name}")))
            })?;
            let shape = MapShape {
                map_type: map.map_type(),
                key_size: map.key_size(),
                value_size: map.value_size(),
                max_entries: map.max_entries(),
                flags: map.map_flags(),
            };
            Ok((name, shape))
        })
        .collect()
}

impl MapShape {
    /// The shape of a pinned map.
    pub(super) fn of_pinned(path: &Path) -> io::Result<Self> {
        let info = MapInfo::from_pin(path).map_err(io::Error::other)?;
        Ok(Self {
            map_type: info.map_type().map_err(io::Error::other)? as u32,
            key_size: info.key_size(),
            value_size: info.value_size(),
            max_entries: info.max_entries(),
            flags: info.map_flags(),
        })
    }
}

/// Loads the programs; each map is taken from, or pinned at, the path that `pin` names for it.
pub(super) fn load<'a>(
    log_level: Option<LogLevel>,
    features: Features,
    pins: impl Iterator<Item = (&'static str, &'a Path)>,
) -> Result<Ebpf, InstallError> {
    let set_retval = u8::from(features.set_retval);
    let netns_cookie = u8::from(features.netns_cookie);
    let ingress = u8::from(features.ingress);
    let level = log_level.map(|level| level as u8);
    let mut loader = EbpfLoader::new();
    loader
        // Nothing is relocated against the kernel's types.
        .btf(None)
        .override_global(SET_RETVAL_GLOBAL, &set_retval, true)
        .override_global(NETNS_COOKIE_GLOBAL, &netns_cookie, true)
        .override_global(INGRESS_GLOBAL, &ingress, true);
    for (name, path) in pins {
        loader.map_pin_path(name, path);
    }
    let object = match &level {
        Some(level) => {
            loader.override_global(aya_log::LEVEL, level, true);
            LOG
        }
        None => PLAIN,
    };
    let mut ebpf = loader.load(object).map_err(load_error)?;
    for name in programs::ALL {
        load_program(program_mut(&mut ebpf, name)?)?;
    }
    Ok(ebpf)
}

/// The descriptor of a loaded program.
pub(super) fn program_fd<'a>(
    ebpf: &'a Ebpf,
    name: &'static str,
) -> Result<BorrowedFd<'a>, InstallError> {
    let program = ebpf.program(name).ok_or_else(|| missing(name))?;
    Ok(program.fd().map_err(load_error)?.as_fd())
}

/// Attaches a program by a link: to a cgroup or, if that is what it is for, to a network namespace.
/// aya's `Single` is right here: links allow other programs beside them by themselves, and the kernel
/// refuses to be told.
pub(super) fn attach(ebpf: &mut Ebpf, name: &str, place: impl AsFd) -> io::Result<FdLink> {
    let mode = CgroupAttachMode::Single;
    match ebpf.program_mut(name) {
        Some(Program::CgroupSockAddr(program)) => {
            let id = program.attach(place, mode).map_err(io_error)?;
            let link = program.take_link(id).map_err(io_error)?;
            link.try_into().map_err(io::Error::other)
        }
        Some(Program::SockOps(program)) => {
            let id = program.attach(place, mode).map_err(io_error)?;
            let link = program.take_link(id).map_err(io_error)?;
            link.try_into().map_err(io::Error::other)
        }
        Some(Program::SkLookup(program)) => {
            let id = program.attach(place).map_err(io_error)?;
            let link = program.take_link(id).map_err(io_error)?;
            Ok(link.into())
        }
        _ => Err(io::Error::other(ProgramError::UnexpectedProgramType)),
    }
}

/// The system's error below aya's.
fn io_error(error: ProgramError) -> io::Error {
    match error {
        ProgramError::SyscallError(error) => error.io_error,
        other => io::Error::other(other),
    }
}

fn load_program(program: &mut Program) -> Result<(), InstallError> {
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::SkLookup(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
    .map_err(load_error)
}

fn program_mut<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut Program, InstallError> {
    ebpf.program_mut(name).ok_or_else(|| missing(name))
}

fn missing(program: &str) -> InstallError {
    load_error(io::Error::other(format!(
        "the object has no program {program}"
    )))
}

fn load_error(error: impl std::error::Error + Send + Sync + 'static) -> InstallError {
    InstallError::Load(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASS: u8 = 0x07;
    const STORE_IMMEDIATE: u8 = 0x02;
    const STORE_REGISTER: u8 = 0x03;
    const SIZE: u8 = 0x18;
    const EIGHT_BYTES: u8 = 0x18;
    const FRAME_POINTER: u8 = 10;

    /// Kernels before 6.11 refuse the programs otherwise, unless the process has `CAP_PERFMON`; see
    /// [`tunnel_ebpf::Endpoint`]. Another compiler may lay the stack out otherwise: this notices.
    #[test]
    fn the_plain_programs_write_their_stack_by_whole_words() {
        let object = aya_obj::Object::parse(PLAIN).unwrap();
        for (name, program) in &object.programs {
            let function = &object.functions[&program.function_key()];
            for (index, instruction) in function.instructions.iter().enumerate() {
                let stores = matches!(instruction.code & CLASS, STORE_IMMEDIATE | STORE_REGISTER);
                let on_stack = instruction.dst_reg() == FRAME_POINTER;
                let whole = instruction.code & SIZE == EIGHT_BYTES;
                assert!(
                    !(stores && on_stack) || whole,
                    "{name}, instruction {index}"
                );
            }
        }
    }

    #[test]
    fn every_map_and_program_of_the_layout_is_in_the_object() {
        let shapes = shapes().unwrap();
        assert_eq!(shapes.len(), maps::ALL.len());
        let object = aya_obj::Object::parse(PLAIN).unwrap();
        let mut names: Vec<&str> = object.programs.keys().map(String::as_str).collect();
        names.sort_unstable();
        let mut expected = programs::ALL;
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert!(shapes.keys().all(|name| name.len() <= 15));
    }
}
