//! The command line: `culvert server|agent|token|node|status`.
//!
//! ```text
//! flag  >  environment CULVERT_<FLAG>  >  --config FILE (YAML, same names)  >  default
//! ```
//! Environment and file become defaults of the clap command before it parses, so that each value
//! passes the same parser wherever it came from; a value that does not is reported where it stands.

mod config_file;
mod environment;
mod layers;
pub mod node;
pub mod status;
mod table;
#[cfg(test)]
mod tests;
pub mod token;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, parser::ValueSource};

pub use environment::Environment;
pub use node::NodeArgs;
pub use status::StatusArgs;
pub use token::TokenArgs;

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
}

impl Command {
    /// What a long-running command logs, and how; `None` for commands that only print.
    pub fn logging(&self) -> Option<(LogFilter, LogFormat)> {
        match self {
            Self::Server(args) => Some((args.log_filter(), args.log.log_format)),
            Self::Agent(args) => Some((args.log.log_level.clone(), args.log.log_format)),
            Self::Token(_) | Self::Node(_) | Self::Status(_) => None,
        }
    }

    fn validate(&self) -> anyhow::Result<()> {
        match self {
            Self::Server(args) => args.validate(),
            Self::Agent(args) => args.validate(),
            Self::Token(_) | Self::Node(_) | Self::Status(_) => Ok(()),
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
        }
    }
}

/// Reads the command line (its first item is the program's name), completed by the environment and
/// the configuration file.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    environment: &Environment,
) -> Result<Command, ParseError> {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut root = Cli::command();
    layers::apply(&mut root, &args, environment)?;
    let matches = root.try_get_matches_from_mut(&args)?;
    let mut command = Cli::from_arg_matches(&matches)?.command;
    if let (Command::Agent(args), Some((_, given))) = (&mut command, matches.subcommand()) {
        args.token_is_public = given.value_source("token") == Some(ValueSource::CommandLine);
    }
    command.validate()?;
    Ok(command)
}

/// The variables of the environment that look like settings but set nothing: probably misspelt.
pub fn unread_variables(environment: &Environment) -> Vec<&str> {
    environment.unread(&layers::all_flags(&Cli::command()))
}

/// Prints an error to stderr as one line, cause after cause.
pub fn print_error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
