//! Many channels of one connection: none waits for another, and each request has its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use russh::client::{self, Handle, Msg};
use russh::keys::load_secret_key;
use russh::keys::{PublicKeyOrCertificate, load_openssh_certificate};
use russh::{Channel, ChannelMsg, Sig};

use crate::support::daemon::wait_until;
use crate::support::ssh::{Site, Sshd};

/// A client that trusts every gateway.
pub struct AnyKey;

impl client::Handler for AnyKey {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

/// A connection on which nobody has logged in.
pub async fn reach(site: &Site) -> Handle<AnyKey> {
    let config = Arc::new(client::Config::default());
    client::connect(config, ("127.0.0.1", site.port()), AnyKey).await.unwrap()
}

/// A connection with the agent's certificate.
pub async fn connect(site: &Site) -> Handle<AnyKey> {
    let mut handle = reach(site).await;
    let key = Arc::new(load_secret_key(site.key(), None).unwrap());
    let certificate = load_openssh_certificate(site.path("agent-cert.pub")).unwrap();
    let answer = handle.authenticate_openssh_cert("web-1", key, certificate).await.unwrap();
    assert!(answer.success());
    handle
}

/// What a channel said until its end: output, exit status, and how many requests succeeded.
async fn rest(channel: &mut Channel<Msg>) -> (Vec<u8>, Option<u32>, usize) {
    let (mut output, mut status, mut succeeded) = (Vec::new(), None, 0);
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => output.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            ChannelMsg::Success => succeeded += 1,
            _ => {}
        }
    }
    (output, status, succeeded)
}

async fn run(handle: &Handle<AnyKey>, line: &str) -> (Vec<u8>, Option<u32>) {
    let mut channel = handle.channel_open_session().await.unwrap();
    channel.exec(true, line).await.unwrap();
    let (output, status, _) = rest(&mut channel).await;
    (output, status)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_whose_target_does_not_read_holds_up_no_other() {
    let site = Site::new("");
    let handle = connect(&site).await;
    let stalled = handle.channel_open_session().await.unwrap();
    stalled.exec(true, "sleep 20; wc -c").await.unwrap();
    let (mut stalled_reading, stalled_writing) = stalled.split();
    // Far more than all buffers on the way take; the sender waits for room.
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    #[expect(clippy::disallowed_methods, reason = "a test's own client, not the gateway's")]
    let flood = tokio::spawn(async move {
        for _ in 0..4_000 {
            stalled_writing.data_bytes(vec![b'x'; 32_000]).await.unwrap();
            counted.fetch_add(32_000, std::sync::atomic::Ordering::Relaxed);
        }
        stalled_writing.eof().await.unwrap();
    });
    let began = Instant::now();
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = sent.load(std::sync::atomic::Ordering::Relaxed);
        if now == before && now > 0 {
            break;
        }
        before = now;
        assert!(began.elapsed() < Duration::from_secs(15), "it never stalls");
    }
    assert!(before < 64_000_000, "{before} bytes were taken without anybody reading them");
    for n in 0..10 {
        assert_eq!(run(&handle, &format!("echo {n}")).await, (format!("{n}\n").into(), Some(0)));
    }
    // Others send and receive in bulk meanwhile.
    let mut bulk = handle.channel_open_session().await.unwrap();
    bulk.exec(true, "wc -c; head -c 20000000 /dev/zero").await.unwrap();
    for _ in 0..300 {
        bulk.data_bytes(vec![b'y'; 32_000]).await.unwrap();
    }
    bulk.eof().await.unwrap();
    let (output, status, _) = rest(&mut bulk).await;
    assert!(output.starts_with(b"9600000\n") && status == Some(0), "{status:?}");
    assert_eq!(output.len(), 20_000_008);
    assert!(began.elapsed() < Duration::from_secs(20), "others waited {:?}", began.elapsed());
    // The stalled one loses nothing.
    let mut output = Vec::new();
    while let Some(message) = stalled_reading.wait().await {
        if let ChannelMsg::Data { data } = message {
            output.extend_from_slice(&data);
        }
    }
    flood.await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output), "128000000\n");
    drop(handle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_whose_client_does_not_read_holds_up_no_other() {
    let site = Site::new("");
    // Of russh's own client one channel that is not read holds up all others, so each has its
    // own connection to look at; the gateway's side is one session's in the paramiko test.
    let (stalled, other) = (connect(&site).await, connect(&site).await);
    let mut channel = stalled.channel_open_session().await.unwrap();
    channel.exec(true, "head -c 50000000 /dev/zero").await.unwrap();
    for n in 0..5 {
        assert_eq!(run(&other, &format!("echo {n}")).await, (format!("{n}\n").into(), Some(0)));
    }
    let (output, status, _) = rest(&mut channel).await;
    assert_eq!((output.len(), status), (50_000_000, Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_each_answered() {
    let site = Site::new("");
    let handle = connect(&site).await;
    let mut channel = handle.channel_open_session().await.unwrap();
    channel.set_env(true, "LANG", "C").await.unwrap();
    channel.set_env(true, "LD_PRELOAD", "/tmp/x").await.unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    channel.exec(true, "stty size").await.unwrap();
    let (mut succeeded, mut failed, mut output) = (0, 0, Vec::new());
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Success => succeeded += 1,
            ChannelMsg::Failure => failed += 1,
            ChannelMsg::Data { data } => output.extend_from_slice(&data),
            _ => {}
        }
    }
    assert_eq!((succeeded, failed), (3, 1));
    assert_eq!(String::from_utf8_lossy(&output), "24 80\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_command_on_a_channel_is_refused() {
    let site = Site::new("");
    let handle = connect(&site).await;
    let mut channel = handle.channel_open_session().await.unwrap();
    channel.exec(true, "sleep 0.5; echo first").await.unwrap();
    channel.exec(true, "echo second").await.unwrap();
    let (output, status, succeeded) = rest(&mut channel).await;
    assert_eq!((&*output, status, succeeded), (&b"first\n"[..], Some(0), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_in_turn_need_one_connection_to_the_target_and_leave_none() {
    let sshd = Sshd::start();
    let site = Site::with(&sshd, "", "");
    let handle = connect(&site).await;
    for n in 0..20 {
        let line = format!("echo {n} $LANG; exit {}", n % 3);
        let mut channel = handle.channel_open_session().await.unwrap();
        // What one command is given is not there for the next.
        if n == 0 {
            channel.set_env(true, "LANG", "C.UTF-8").await.unwrap();
        }
        channel.exec(true, line).await.unwrap();
        let (output, status, _) = rest(&mut channel).await;
        let lang = if n == 0 { "C.UTF-8" } else { "" };
        assert_eq!(String::from_utf8_lossy(&output).trim(), format!("{n} {lang}").trim());
        assert_eq!(status, Some(n % 3));
    }
    assert_eq!(sshd.connections(), 1);
    // Two at once have one each.
    let mut first = handle.channel_open_session().await.unwrap();
    first.exec(true, "cat; echo first").await.unwrap();
    assert_eq!(run(&handle, "echo second").await, (b"second\n".to_vec(), Some(0)));
    first.eof().await.unwrap();
    let (output, status, _) = rest(&mut first).await;
    assert_eq!((&*output, status), (&b"first\n"[..], Some(0)));
    assert_eq!(sshd.connections(), 2);
    assert_eq!(sshd.standing(), 2);
    drop(handle);
    wait_until("the session's connections to end", || sshd.standing() == 0);
    site.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_is_lost_costs_no_command() {
    let sshd = Sshd::start();
    let site = Site::with(&sshd, "", "");
    let handle = connect(&site).await;
    for n in 1..=5 {
        assert_eq!(run(&handle, "echo here").await, (b"here\n".to_vec(), Some(0)));
        assert_eq!(sshd.connections(), n);
        sshd.cut_connections();
    }
    drop(handle);
    site.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_program_and_many_channels_in_turn_leave_nothing() {
    let site = Site::new("");
    let handle = connect(&site).await;
    let channel = handle.channel_open_session().await.unwrap();
    // It ends with its input: sshd leaves others running when their channel closes.
    channel.exec(true, "cat").await.unwrap();
    let mut channel2 = handle.channel_open_session().await.unwrap();
    channel2.exec(true, "exec sleep 3").await.unwrap();
    channel2.signal(Sig::TERM).await.unwrap();
    let mut killed = None;
    while let Some(message) = channel2.wait().await {
        if let ChannelMsg::ExitSignal { signal_name, .. } = message {
            killed = Some(format!("{signal_name:?}"));
        }
    }
    // sshd that runs its sessions as root passes no signals on, and says so.
    let root = rustix::process::geteuid().is_root();
    assert!(root || killed.as_deref() == Some("TERM"), "{killed:?}");
    channel.close().await.unwrap();
    for n in 0..70 {
        let (output, status) = run(&handle, &format!("echo {n}; exit {}", n % 3)).await;
        assert_eq!((output, status), (format!("{n}\n").into(), Some(n % 3)));
    }
    drop(channel);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_channels_is_refused_and_the_connection_lives() {
    let site = Site::new("");
    let handle = connect(&site).await;
    let mut open = Vec::new();
    let mut refused = 0;
    for _ in 0..200 {
        match handle.channel_open_session().await {
            Ok(channel) => open.push(channel),
            Err(russh::Error::ChannelOpenFailure(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0 && open.len() >= 10, "{} open, {refused} refused", open.len());
    for channel in open.drain(..) {
        channel.close().await.unwrap();
    }
    let began = Instant::now();
    let (output, status) = loop {
        assert!(began.elapsed() < Duration::from_secs(20));
        if let Ok(mut channel) = handle.channel_open_session().await {
            channel.exec(true, "echo alive").await.unwrap();
            let (output, status, _) = rest(&mut channel).await;
            break (output, status);
        }
    };
    assert_eq!((&*output, status), (&b"alive\n"[..], Some(0)));
}
