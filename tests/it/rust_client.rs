//! tokio-postgres: one program, directly and through the gateway.

use std::fmt::Write as _;
use std::pin::pin;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _, future, stream};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, SimpleQueryMessage};

use crate::clients::Site;

#[tokio::test]
async fn tokio_postgres_says_the_same_through_the_gateway() {
    let site = Site::new();
    let direct = program(&site.database.client().tokio_postgres()).await;
    let through = program(&site.gateway.client("orders").tokio_postgres()).await;
    assert!(direct.lines().count() > 20, "{direct}");
    assert_eq!(direct, through);
    site.finish();
}

async fn program(config: &Config) -> String {
    let mut said = String::new();
    let (client, notices) = connect(config).await;
    client.batch_execute("create table r (i int, t text)").await.unwrap();

    // Many requests before the first answer.
    let doubled = |n: i32| {
        let client = &client;
        async move { client.query_one("select $1::int4 * 2", &[&n]).await.unwrap().get(0) }
    };
    let rows: Vec<i32> = future::join_all((0..500).map(doubled)).await;
    writeln!(said, "pipelined {}", rows.iter().sum::<i32>()).unwrap();

    copies(&client, &mut said).await;
    portals(config, &mut said).await;
    errors(&client, &mut said).await;
    cancels(&client, &mut said).await;

    client.batch_execute("listen rust; notify rust, 'one'; notify rust, 'two'").await.unwrap();
    client.batch_execute("do $$ begin raise notice 'a notice'; end $$").await.unwrap();
    client.batch_execute("drop table r").await.unwrap();
    drop(client);
    for line in notices.await.unwrap() {
        writeln!(said, "{line}").unwrap();
    }
    said
}

/// A client, and what the server told unasked, to be awaited once the client is gone.
async fn connect(config: &Config) -> (Client, tokio::task::JoinHandle<Vec<String>>) {
    let (client, mut connection) = config.connect(NoTls).await.unwrap();
    let messages = stream::poll_fn(move |context| connection.poll_message(context));
    #[expect(clippy::disallowed_methods, reason = "a test awaits it by its handle")]
    let told = tokio::spawn(async move {
        let mut told = Vec::new();
        let mut messages = pin!(messages);
        while let Some(message) = messages.next().await {
            match message.unwrap() {
                AsyncMessage::Notification(n) => {
                    told.push(format!("notification {} {}", n.channel(), n.payload()));
                }
                AsyncMessage::Notice(notice) => told.push(format!("notice {notice}")),
                other => told.push(format!("{other:?}")),
            }
        }
        told
    });
    (client, told)
}

async fn copies(client: &Client, said: &mut String) {
    let sink = client.copy_in::<_, Bytes>("copy r from stdin").await.unwrap();
    let mut sink = pin!(sink);
    for n in 0..2000 {
        sink.send(Bytes::from(format!("{n}\t{}\n", "x".repeat(n % 500)))).await.unwrap();
    }
    writeln!(said, "copied in {}", sink.finish().await.unwrap()).unwrap();

    let out = client.copy_out("copy (select * from r order by i) to stdout (format binary)");
    let whole = out.await.unwrap().try_collect::<Vec<_>>().await.unwrap().concat();
    writeln!(said, "copied out {} {}", whole.len(), blake(&whole)).unwrap();

    // A sink that is dropped sends CopyFail.
    let mut given_up = Box::pin(client.copy_in::<_, Bytes>("copy r from stdin").await.unwrap());
    given_up.send(Bytes::from_static(b"1\tgiven up\n")).await.unwrap();
    drop(given_up);
    let row = client.query_one("select count(*) from r", &[]).await.unwrap();
    writeln!(said, "kept {}", row.get::<_, i64>(0)).unwrap();
}

async fn portals(config: &Config, said: &mut String) {
    let (mut client, _notices) = connect(config).await;
    let statement = client.prepare("select i from r where i < $1 order by i").await.unwrap();
    writeln!(said, "{:?} {:?}", statement.params(), statement.columns().len()).unwrap();
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind(&statement, &[&100]).await.unwrap();
    loop {
        let rows = transaction.query_portal(&portal, 33).await.unwrap();
        writeln!(said, "portal gave {}", rows.len()).unwrap();
        if rows.len() < 33 {
            break;
        }
    }
    transaction.rollback().await.unwrap();
}

async fn errors(client: &Client, said: &mut String) {
    for statement in ["select 1 / 0", "selec", "select * from nowhere"] {
        let simple = client.simple_query(statement).await.unwrap_err();
        writeln!(said, "{:?}", simple.as_db_error().unwrap()).unwrap();
        let extended = client.query(statement, &[]).await.unwrap_err();
        writeln!(said, "{:?}", extended.as_db_error().unwrap()).unwrap();
    }
    // The failing request fails alone: every request has its own sync.
    let divided = async |n: i32| {
        let row = client.query_one("select 100 / $1::int4", &[&n]).await;
        row.map(|row| row.get::<_, i32>(0)).map_err(|error| error.code().cloned())
    };
    for value in future::join_all((0..20).map(|n| divided(n % 5))).await {
        writeln!(said, "{value:?}").unwrap();
    }
    for message in client.simple_query("select 1 as a; select 'x', null; ").await.unwrap() {
        match message {
            SimpleQueryMessage::Row(row) => {
                let values: Vec<_> = (0..row.len()).map(|n| row.get(n)).collect();
                writeln!(said, "row {values:?}").unwrap();
            }
            SimpleQueryMessage::CommandComplete(rows) => writeln!(said, "done {rows}").unwrap(),
            _ => {}
        }
    }
}

async fn cancels(client: &Client, said: &mut String) {
    let cancel = client.cancel_token();
    let sleeping = client.simple_query("select pg_sleep(60)");
    let mut sleeping = pin!(sleeping);
    // A cancel that comes before its statement is lost, as without a gateway; so it is repeated.
    let error = loop {
        tokio::select! {
            result = &mut sleeping => break result.unwrap_err(),
            () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {
                cancel.cancel_query(NoTls).await.unwrap();
            }
        }
    };
    writeln!(said, "{:?}", error.code()).unwrap();
    // A cancel that was late hits nothing or the next statement.
    while client.simple_query("select 1").await.is_err() {}
}

fn blake(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
