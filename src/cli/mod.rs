//! The command line: one file per command.
//!
//! A command returns what went wrong; [`run`] alone prints it and picks the exit code: 0 done,
//! 1 failed, 2 usage or configuration.

mod access;
mod approval;
mod backtest;
mod check;
mod completions;
mod fetched;
mod gateway;
mod hold;
mod http;
mod identities;
mod issuer;
mod logging;
mod login;
mod man;
mod migrate;
mod output;
mod policy;
mod progress;
mod quickstart;
mod recording;
mod reload;
mod replay;
mod schema;
mod serve;
mod session;
mod ssh_cert;
mod ticket;
mod token;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::Mistakes;

const FAILED: u8 = 1;
const USAGE_OR_CONFIGURATION: u8 = 2;

/// A gateway between AI agents and the systems they touch.
///
/// Exit codes: 0 done, 1 failed, 2 usage or configuration.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version)]
struct Cli {
    #[command(flatten)]
    logging: logging::Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Quickstart(quickstart::Options),
    Serve(serve::Options),
    Check(check::Options),
    Policy(policy::Options),
    Reload(reload::Options),
    Session(session::Options),
    Approval(approval::Options),
    Access(access::Options),
    Ticket(ticket::Options),
    User(user::Options),
    Replay(replay::Options),
    Recording(recording::Options),
    Hold(hold::Options),
    Migrate(migrate::Options),
    Login(login::Options),
    Token(token::Options),
    SshCert(ssh_cert::Options),
    Issuer(issuer::Options),
    Schema(schema::Options),
    Completions(completions::Options),
    Man(man::Options),
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(
        long = "config",
        value_name = "FILE",
        env = "PORTCULLIS_CONFIG",
        default_value = "/etc/portcullis/portcullis.toml"
    )]
    path: PathBuf,
}

/// Runs the command that the process was started with, and says how it went.
pub async fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Nothing is left to tell it to when the terminal is gone.
            let _gone = e.print();
            return ExitCode::from(if e.use_stderr() { USAGE_OR_CONFIGURATION } else { 0 });
        }
    };
    let done = match logging::start(&cli.logging) {
        Ok(()) => run_command(cli.command).await,
        Err(e) => Err(e),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if output::is_gone(&e) => ExitCode::SUCCESS,
        Err(e) => {
            output::complain(&e);
            ExitCode::from(exit_code(&e))
        }
    }
}

async fn run_command(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Quickstart(options) => quickstart::run(options).await,
        Command::Serve(options) => serve::run(options).await,
        Command::Check(options) => check::run(options).await,
        Command::Policy(options) => policy::run(&options).await,
        Command::Reload(options) => reload::run(options).await,
        Command::Replay(options) => replay::run(options).await,
        Command::Session(options) => session::run(options).await,
        Command::Approval(options) => approval::run(options).await,
        Command::Access(options) => access::run(options).await,
        Command::Ticket(options) => ticket::run(options).await,
        Command::User(options) => user::run(options).await,
        Command::Recording(options) => recording::run(&options).await,
        Command::Hold(options) => hold::run(options).await,
        Command::Migrate(options) => migrate::run(options).await,
        Command::Login(options) => login::run(options).await,
        Command::Token(options) => token::run(options).await,
        Command::SshCert(options) => ssh_cert::run(options).await,
        Command::Issuer(options) => issuer::run(options).await,
        Command::Schema(options) => schema::run(&options),
        Command::Completions(options) => completions::run(&options),
        Command::Man(options) => man::run(&options),
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let configuration = error.is::<Mistakes>()
        || error.is::<logging::BadFilter>()
        || error.is::<issuer::BadOptions>();
    if configuration { USAGE_OR_CONFIGURATION } else { FAILED }
}
