//! What names of header fields say: who asks and from where, which no client may claim, and which
//! values are credentials.
//!
//! Servers that hand fields on as variables (CGI, WSGI, Rack, PHP) know one character for all that is no
//! letter and no digit, so names are compared with `-` for each of those.

use std::borrow::Cow;

/// Words of names that name an identity.
const IDENTITY: &[&str] = &[
    "acting",
    "actor",
    "admin",
    "affiliation",
    "behalf",
    "caller",
    "claim",
    "claims",
    "cn",
    "consumer",
    "delegate",
    "delegated",
    "delegation",
    "displayname",
    "dn",
    "email",
    "employee",
    "employeenumber",
    "entitlement",
    "entitlements",
    "eppn",
    "gid",
    "givenname",
    "group",
    "groups",
    "identity",
    "impersonate",
    "impersonation",
    "initiator",
    "login",
    "mail",
    "member",
    "memberof",
    "msisdn",
    "nameid",
    "operator",
    "peer",
    "permission",
    "permissions",
    "person",
    "principal",
    "privilege",
    "privileges",
    "requester",
    "requestor",
    "role",
    "roles",
    "runas",
    "scopes",
    "sn",
    "spiffe",
    "staff",
    "sub",
    "subject",
    "sudo",
    "superuser",
    "surname",
    "uid",
    "upn",
    "user",
    "userid",
    "userinfo",
    "username",
    "webauth",
    "wsse",
];

/// Words of names that name an address.
const ADDRESS: &[&str] = &[
    "addr",
    "address",
    "clientip",
    "forwarded",
    "host",
    "hostname",
    "ip",
    "ipv4",
    "ipv6",
    "remoteip",
    "socketip",
];

/// Names that proxies, single sign-on and gateways use, which have none of those words.
const NAMES: &[&str] = &[
    "act-as",
    "authorisation",
    "client-ip",
    "forwarded",
    "from",
    "front-end-https",
    "l5d-client-id",
    "persistent-id",
    "proxy",
    "run-as",
    "targeted-id",
    "true-client-ip",
    "via",
    "x-access-token",
    "x-act-as",
    "x-auth-name",
    "x-client-verify",
    "x-id-token",
    "x-istio-attributes",
    "x-jwt",
    "x-real-scheme",
    "x-rewrite-path",
    "x-rewrite-uri",
    "x-run-as",
    "x-scheme",
    "x-scope",
    "x-scope-orgid",
    "x-url-scheme",
];

/// What the names of others of those begin with.
const PREFIXES: &[&str] = &[
    "cf-access-",
    "cf-connecting-",
    "client-cert",
    "eduperson",
    "iv-",
    "l5d-",
    "mellon-",
    "oidc-",
    "remote-",
    "shib-",
    "sm-",
    "ssl-",
    "tailscale-",
    "x-amzn-mtls-",
    "x-amzn-oidc-",
    "x-anonymous-",
    "x-appengine-",
    "x-arr-",
    "x-auth-request-",
    "x-authenticated-",
    "x-authentik-",
    "x-client-cert",
    "x-cloudscheduler",
    "x-cloudtasks-",
    "x-credential-",
    "x-envoy-",
    "x-forwarded-",
    "x-goog-authenticated-",
    "x-goog-iap-",
    "x-hasura-",
    "x-jwt-",
    "x-ldap-",
    "x-ms-client-principal",
    "x-ms-token-aad-",
    "x-nokia-",
    "x-oidc-",
    "x-original-",
    "x-pomerium-",
    "x-remote-",
    "x-rh-",
    "x-shib-",
    "x-ssl-",
    "x-sso-",
    "x-up-calling-",
    "x-vouch-",
    "x-waws-",
    "x-webauth-",
];

/// Names that hold such a word and mean something else.
const NO_CLAIMS: &[&str] = &["host", "x-goog-user-project"];

/// Words of names whose values are credentials.
const CREDENTIAL: &[&str] = &[
    "apikey",
    "assertion",
    "auth",
    "authorization",
    "cookie",
    "cookie2",
    "credential",
    "credentials",
    "jwt",
    "key",
    "passwd",
    "password",
    "secret",
    "token",
];

/// Names that hold such a word and mean something else.
const NO_CREDENTIALS: &[&str] = &["idempotency-key", "sec-websocket-key"];

/// A name as servers compare it: in lower case, with `-` for all that is no letter and no digit.
pub fn canonical(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        return Cow::Borrowed(name);
    }
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    Cow::Owned(name.chars().map(letter).collect())
}

/// How words of names end that name a path or an address of a page.
const PATH: &[&str] = &["url", "uri", "path", "pathinfo", "scriptname"];

/// What is in a name besides one of those, where the path is the one that is asked for.
const ASKED: &[&str] = &[
    "dispatch",
    "forward",
    "http",
    "internal",
    "original",
    "overrid",
    "overwrit",
    "proxy",
    "real",
    "replace",
    "request",
    "rewrit",
    "script",
    "target",
    "unencoded",
];

/// Names that say no more than that.
const PATHS: &[&str] = &[
    "path",
    "path-info",
    "script-name",
    "uri",
    "url",
    "x-path",
    "x-path-info",
    "x-script-name",
    "x-uri",
    "x-url",
];

/// Whether a field asks for another path than the request's own, as far as its name tells. The name is
/// canonical.
fn asks_for_path(name: &str) -> bool {
    let names = |word: &str| PATH.iter().any(|end| word.ends_with(end));
    PATHS.contains(&name)
        || (name.split('-').any(names) && ASKED.iter().any(|asked| name.contains(asked)))
}

/// Whether a field claims who asks, from where, over what, or in whose name, or asks for another path.
/// The name is canonical.
pub fn is_claim(name: &str) -> bool {
    if NO_CLAIMS.contains(&name) || name.ends_with("user-agent") || name.starts_with("sec-") {
        return false;
    }
    NAMES.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || asks_for_path(name)
        || name.split('-').any(|word| IDENTITY.contains(&word) || ADDRESS.contains(&word))
}

/// Whether a field's value is a credential, of whomever.
pub fn is_credential(name: &str) -> bool {
    let name = canonical(name);
    !NO_CREDENTIALS.contains(&&*name) && name.split('-').any(|word| CREDENTIAL.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_claim_who_asks_or_from_where_are_known() {
        for name in [
            "Remote-User",
            "X_WEBAUTH_USER",
            "Impersonate-User",
            "Impersonate-Extra-Scopes",
            "CF-Connecting-IP",
            "X-Client-IP",
            "X-Cluster-Client-Ip",
            "X-Forwarded-For",
            "Forwarded",
            "X-Auth-Request-Email",
            "X-Trino-User",
            "es-security-runas-user",
            "X-Azure-ClientIP",
            "Client-Cert-Chain",
            "X.Remote.User",
            "X-On-Behalf-Of",
            "Act-As",
            "X_Run_As",
            "X-Acting-As",
            "X-Sub",
            "X-Client-DN",
            "X-Dn",
            "X-Spiffe-Id",
            "X-Claims",
            "X-Caller",
            "X-Delegate",
            "Mail",
            "Displayname",
            "Givenname",
            "X-Webauth",
            "X-Jwt",
            "X-Scopes",
            "X-Employee",
            "X-Staff",
            "X-CloudScheduler",
            "X-CloudTasks-QueueName",
            "eduPersonPrincipalName",
            "X-Upn",
            "X-Permissions",
            "Proxy",
            "L5d-Client-Id",
            "X-Nokia-Msisdn",
            "X-Superuser",
            "X-Id-Token",
            "X-Requester",
        ] {
            assert!(is_claim(&canonical(name)), "{name}");
        }
        for name in [
            "User-Agent",
            "X-Amz-User-Agent",
            "Accept",
            "Origin",
            "X-Trace",
            "Sec-Fetch-User",
            "X-Tenant-Id",
            "Stripe-Account",
            "X-Org-Id",
            "X-Customer",
        ] {
            assert!(!is_claim(&canonical(name)), "{name}");
        }
    }

    #[test]
    fn names_that_ask_for_another_path_are_known() {
        for name in [
            "X-Override-URL",
            "X_HTTP_Path_Override",
            "X-HTTP-DestinationURL",
            "X-Replaced-Path",
            "X-Request-URI",
            "Request-Uri",
            "X-Script-Name",
            "Path-Info",
            "X-Waws-Unencoded-Url",
            "X-Unencoded-Path",
        ] {
            assert!(is_claim(&canonical(name)), "{name}");
        }
        for name in [
            "HX-Current-URL",
            "X-Callback-Url",
            "Dropbox-API-Path-Root",
            "X-Requested-With",
            "Referer",
        ] {
            assert!(!is_claim(&canonical(name)), "{name}");
        }
    }

    #[test]
    fn names_of_credentials_are_known() {
        for name in
            ["authorization", "set-cookie", "X-Api-Key", "x_auth_token", "proxy-authorization"]
        {
            assert!(is_credential(name), "{name}");
        }
        for name in ["accept", "idempotency-key", "www-authenticate", "x-keys"] {
            assert!(!is_credential(name), "{name}");
        }
    }
}
