//! Parse the command line, run, set the exit code.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // It fails only when a provider is there already, and there is only this one.
    let _already = rustls::crypto::aws_lc_rs::default_provider().install_default();
    portcullis::cli::run().await
}
