//! The command line: `culvert server|agent|token|node|status|migrate`, and that of Yurt-Tunnel's programs.
//!
//! ```text
//! flag  >  environment CULVERT_<FLAG>  >  --config FILE (YAML, same names)  >  default
//! ```
//! Environment and file become defaults of the clap command before it parses, so that each value
//! passes the same parser wherever it came from; a value that does not is reported where it stands.

mod config_file;
mod environment;
mod layers;
pub mod migrate;
pub mod node;
pub mod status;
mod table;
#[cfg(test)]
mod tests;
pub mod token;
mod yurt_tunnel;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, parser::ValueSource};

pub use environment::Environment;
pub use migrate::MigrateArgs;
pub use node::NodeArgs;
pub use status::StatusArgs;
pub use token::TokenArgs;
use yurt_tunnel::Program;
pub use yurt_tunnel::Translated;

use crate::{
    observability::logging::{LogFilter, LogFormat},
    settings::{AgentArgs, ServerArgs},
};

/// The exit code for a command line, environment or configuration file that is not understood.
const EXIT_USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(
    name = "culvert",
    version,
    about = "Carries a control plane's connections to edge nodes behind NAT",
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What culvert was asked to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server on a control-plane machine: captures connects to edge nodes and carries them
    Server(Box<ServerArgs>),
    /// Run the agent on an edge node: keeps a session to every server and dials for it
    Agent(Box<AgentArgs>),
    /// Decide who may enrol: make, show and revoke tokens
    Token(TokenArgs),
    /// Show and remove registered nodes
    Node(NodeArgs),
    /// Show what a running server or agent is doing
    Status(StatusArgs),
    /// Show and remove what a Yurt-Tunnel server left in this machine's iptables
    Migrate(MigrateArgs),
}

/// Why there is no [`Command`].
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Clap's own answer: help, version, or a command line it does not understand.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// The environment, the configuration file, or flags that contradict each other.
    #[error(transparent)]
    Settings(#[from] anyhow::Error),
    /// The version was asked for, of a program that has another name besides.
    #[error("the version was asked for")]
    Version(&'static str),
}

/// A command, and how it was asked for.
#[derive(Debug)]
pub struct Invocation {
    /// What culvert was asked to do.
    pub command: Command,
    /// Where it was asked in Yurt-Tunnel's words.
    pub translated: Option<Translated>,
}

impl Command {
    /// What a long-running command logs, and how; `None` for commands that only print.
    pub fn logging(&self) -> Option<(LogFilter, LogFormat)> {
        match self {
            Self::Server(args) => Some((args.log_filter(), args.log.log_format)),
            Self::Agent(args) => Some((args.log.log_level.clone(), args.log.log_format)),
            Self::Token(_) | Self::Node(_) | Self::Status(_) | Self::Migrate(_) => None,
        }
    }

    fn validate(&self) -> anyhow::Result<()> {
        match self {
            Self::Server(args) => args.validate(),
            Self::Agent(args) => args.validate(),
            Self::Token(_) | Self::Node(_) | Self::Status(_) | Self::Migrate(_) => Ok(()),
        }
    }
}

impl ParseError {
    /// Prints the error, or the help that was asked for, and returns the exit code.
    pub fn print(&self) -> u8 {
        match self {
            Self::CommandLine(answer) => {
                // Nothing is left to tell anybody when the terminal is gone.
                let _ = answer.print();
                u8::try_from(answer.exit_code()).unwrap_or(EXIT_USAGE)
            }
            Self::Settings(error) => {
                print_error(error);
                EXIT_USAGE
            }
            Self::Version(program) => {
                println!("{program}: culvert {}", crate::VERSION);
                0
            }
        }
    }
}

/// Reads the command line (its first item is the program's name), completed by the environment and
/// the configuration file.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    environment: &Environment,
) -> Result<Invocation, ParseError> {
    let args = yurt_tunnel::with_own_name(args.into_iter().collect());
    if let Some(program) = Program::asked_for(&args) {
        return parse_translated(program, &args, environment);
    }
    let command = parse_own(program(), &args, environment)?;
    Ok(Invocation {
        command,
        translated: None,
    })
}

/// The whole command line as clap knows it.
fn program() -> clap::Command {
    Cli::command().subcommands(yurt_tunnel::commands())
}

fn parse_own(
    mut root: clap::Command,
    args: &[OsString],
    environment: &Environment,
) -> Result<Command, ParseError> {
    layers::apply(&mut root, args, environment)?;
    let matches = root.try_get_matches_from_mut(args)?;
    let mut command = Cli::from_arg_matches(&matches)?.command;
    if let (Command::Agent(args), Some((_, given))) = (&mut command, matches.subcommand()) {
        args.token_is_public = given.value_source("token") == Some(ValueSource::CommandLine);
    }
    command.validate()?;
    Ok(command)
}

/// Reads a command line of Yurt-Tunnel's, and then the one that means the same.
fn parse_translated(
    yurt_tunnel: Program,
    args: &[OsString],
    environment: &Environment,
) -> Result<Invocation, ParseError> {
    let matches = program().try_get_matches_from(args)?;
    let flags = matches.subcommand_matches(yurt_tunnel.name());
    let flags = flags.expect("the subcommand has been looked for");
    let translation = yurt_tunnel::translate(yurt_tunnel, flags, environment)?;
    let mut root = Cli::command();
    layers::set_defaults(&mut root, translation.role(), translation.defaults());
    let own: Vec<_> = translation.args().map(OsString::from).collect();
    let command = parse_own(root, &own, environment).map_err(|error| match error {
        ParseError::Settings(error) => error
            .context(format!("{} means `{translation}`", yurt_tunnel.name()))
            .into(),
        other => other,
    })?;
    Ok(Invocation {
        command,
        translated: Some(translation.of(yurt_tunnel)),
    })
}

/// The variables of the environment that look like settings but set nothing: probably misspelt.
pub fn unread_variables(environment: &Environment) -> Vec<&str> {
    environment.unread(&layers::all_flags(&Cli::command()))
}

/// Prints an error to stderr as one line, cause after cause.
pub fn print_error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
