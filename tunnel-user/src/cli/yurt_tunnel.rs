//! The command lines of Yurt-Tunnel 1.5: `yurt-tunnel-server` and `yurt-tunnel-agent`, as subcommands and as names of
//! the program.
//!
//! ```text
//!  Yurt-Tunnel's flags --translate--> `culvert server|agent --kubernetes ...` --> the same parser, the same roots
//!                      \--> what means nothing here: one line of the log
//! ```
//! What a flag says stands above the environment (`CULVERT_<FLAG>`) and the configuration file, as on culvert's own
//! command line. Yurt-Tunnel's defaults stand below both, so that whatever has no flag there can be set all the same.

mod agent;
mod klog;
mod server;
#[cfg(test)]
mod tests;
mod translation;
mod values;

use std::{ffi::OsString, path::Path};

use clap::{Arg, ArgMatches, Args as _, Command, FromArgMatches as _};

pub use self::translation::Translated;
use self::{agent::AgentFlags, server::ServerFlags, translation::Translation};
use super::{Environment, ParseError};

/// The name that values of switches have in the help.
const SWITCH: &str = "BOOL";

/// A program of Yurt-Tunnel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Server,
    Agent,
}

impl Program {
    const ALL: [Self; 2] = [Self::Server, Self::Agent];

    /// The name of its binary, by which it is called here too.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Server => "yurt-tunnel-server",
            Self::Agent => "yurt-tunnel-agent",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|program| program.name() == name)
    }

    /// Whether the arguments ask for it.
    pub(super) fn asked_for(args: &[OsString]) -> Option<Self> {
        Self::of_name(args.get(1)?.to_str()?)
    }

    fn command(self) -> Command {
        let command = Command::new(self.name())
            .disable_version_flag(true)
            .args_override_self(true)
            .max_term_width(100)
            .after_help(
                "Whatever has no flag here is set as for `culvert server` and `culvert agent`, by the environment \
                 (CULVERT_<FLAG>) or by the file that CULVERT_CONFIG names.",
            );
        let command = match self {
            Self::Server => ServerFlags::augment_args(
                command.about("Run the server by the command line of Yurt-Tunnel 1.5's"),
            ),
            Self::Agent => AgentFlags::augment_args(
                command.about("Run the agent by the command line of Yurt-Tunnel 1.5's"),
            ),
        };
        command.mut_args(as_go_has_it)
    }
}

/// A switch is on where it is given without a value, and has a value only after an equals sign.
fn as_go_has_it(flag: Arg) -> Arg {
    let is_switch = flag
        .get_value_names()
        .is_some_and(|names| *names == [SWITCH]);
    if is_switch {
        flag.num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
    } else {
        flag
    }
}

/// The subcommands.
pub(super) fn commands() -> impl Iterator<Item = Command> {
    Program::ALL.into_iter().map(Program::command)
}

/// The arguments with the subcommand that the program's own name stands for, if it is one of Yurt-Tunnel's.
pub(super) fn with_own_name(mut args: Vec<OsString>) -> Vec<OsString> {
    let name = args.first().and_then(|name| Path::new(name).file_name());
    let program = name.and_then(|name| Program::of_name(name.to_str()?));
    if let Some(program) = program {
        args.splice(..1, ["culvert".into(), program.name().into()]);
    }
    args
}

/// What the flags mean here.
pub(super) fn translate(
    program: Program,
    matches: &ArgMatches,
    environment: &Environment,
) -> Result<Translation, ParseError> {
    let translation = match program {
        Program::Server => {
            let flags = ServerFlags::from_arg_matches(matches)?;
            if flags.version == Some(true) {
                return Err(ParseError::Version("yurttunnel-server"));
            }
            flags.translate()?
        }
        Program::Agent => {
            let flags = AgentFlags::from_arg_matches(matches)?;
            if flags.version == Some(true) {
                return Err(ParseError::Version("yurttunnel-agent"));
            }
            flags.translate(environment)?
        }
    };
    Ok(translation)
}
