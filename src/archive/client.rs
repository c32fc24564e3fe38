//! The gateway's own HTTP client for object storage: one TLS stack, one crypto backend.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector as Tcp;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};

use tokio::time::{Instant, Sleep};

use crate::trust;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take, with a part of [`super::store::PART`] bytes sent before it.
const ANSWER: Duration = Duration::from_secs(60);
/// How long the next bytes of an answer may take.
const PAUSE: Duration = Duration::from_secs(30);

/// Makes the client.
#[derive(Debug)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // `AWS_ALLOW_HTTP`; what a cloud tells its own machines always comes so.
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp);
        let plain = plain.is_some_and(|value| value == "true");
        Ok(HttpClient::new(Service(hyper_client(plain).map_err(generic)?)))
    }
}

fn generic(text: String) -> object_store::Error {
    object_store::Error::Generic { store: "S3", source: text.into() }
}

type Hyper<B> = Client<HttpsConnector<Tcp>, B>;

/// A client that trusts the system's authorities, for TLS alone unless `plain`.
pub(super) fn hyper_client<B>(plain: bool) -> Result<Hyper<B>, String>
where
    B: Body + Send,
    B::Data: Send,
{
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(trust::roots(None)?)
        .with_no_client_auth();
    let mut tcp = Tcp::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
    let connector = if plain { connector.https_or_http() } else { connector.https_only() };
    Ok(Client::builder(TokioExecutor::new()).build(connector.enable_http1().wrap_connector(tcp)))
}

#[derive(Debug)]
struct Service(Hyper<HttpRequestBody>);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = tokio::time::timeout(ANSWER, self.0.request(request));
        let response = match answer.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(told(error)),
            Err(late) => return Err(HttpError::new(HttpErrorKind::Timeout, late)),
        };
        let (head, body) = response.into_parts();
        let pause = Box::pin(tokio::time::sleep(PAUSE));
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(Patient { body, pause })))
    }
}

/// A body whose next bytes come within [`PAUSE`]: a server that stops in the middle must not hold
/// an upload or a page for ever.
struct Patient {
    body: Incoming,
    pause: Pin<Box<Sleep>>,
}

impl Body for Patient {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => {
                self.pause.as_mut().reset(Instant::now() + PAUSE);
                let told = |error| HttpError::new(HttpErrorKind::Interrupted, error);
                Poll::Ready(frame.map(|frame| frame.map_err(told)))
            }
            Poll::Pending => self.pause.as_mut().poll(context).map(|()| {
                let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
                Some(Err(HttpError::new(HttpErrorKind::Timeout, late)))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn told(error: Error) -> HttpError {
    let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
    HttpError::new(kind, error)
}
