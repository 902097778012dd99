//! The binary: reads the command line, starts logging and the runtime, and turns the outcome into
//! an exit code.

use std::process::ExitCode;

use tunnel_user::{
    app,
    cli::{self, Command, Environment, Invocation},
    observability::logging,
};

/// Gives back within a second what a burst has left: with the C library's a session takes 5 KiB more, and 18 KiB after
/// all agents have come back. How it is set stands in `.cargo/config.toml`, what was compared in docs/benchmarks.md.
/// Not where the size of pages may be another than on the machine that builds, which is built in.
#[cfg(target_arch = "x86_64")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The command did what it was asked to do.
const EXIT_OK: u8 = 0;
/// The command was understood, and failed.
const EXIT_FAILURE: u8 = 1;

fn main() -> ExitCode {
    let environment = Environment::of_this_process();
    let invocation = match cli::parse(std::env::args_os(), &environment) {
        Ok(invocation) => invocation,
        Err(error) => return ExitCode::from(error.print()),
    };
    match run(invocation, &environment) {
        Ok(()) => ExitCode::from(EXIT_OK),
        Err(error) => {
            cli::print_error(&error);
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn run(invocation: Invocation, environment: &Environment) -> anyhow::Result<()> {
    let Invocation {
        command,
        translated,
    } = invocation;
    if let Some((filter, format)) = command.logging() {
        logging::init(&filter, format)?;
        if let Some(translated) = translated {
            translated.tell();
        }
        for variable in cli::unread_variables(environment) {
            tracing::warn!(
                variable,
                "nothing reads this environment variable: is it misspelt?"
            );
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match command {
            Command::Server(args) => app::server::run(*args).await,
            Command::Agent(args) => app::agent::run(*args).await,
            Command::Token(args) => cli::token::run(&args).await,
            Command::Node(args) => cli::node::run(&args),
            Command::Status(args) => cli::status::run(&args).await,
            Command::Migrate(args) => cli::migrate::run(&args),
        }
    })
}
