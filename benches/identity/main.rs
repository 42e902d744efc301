//! The identity bench: `cargo bench --bench identity`.
//!
//! What it costs to know who asks and whether they may: a token for the first time and again, with one issuer and with
//! five; a decision by the first worked example of the page on policies, and one by a policy that asks for claims, beside Cedar's own
//! `is_authorized` on entities and a request that are there already; and a decision without policies. Ratios of one run
//! count.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on says where")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![expect(clippy::cast_precision_loss, reason = "figures are for people")]

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cedar_policy::{
    Authorizer as Cedar, Context, Entities, Entity, EntityUid, PolicySet, Request as CedarRequest,
    RestrictedExpression,
};
use image_share_gateway::auth::{Authenticator, Grant, KeySet, Mint};
use image_share_gateway::authorization::{Authorizer, Decision, Policies, Request};
use image_share_gateway::config::{Auth, Issuer, KeySource};
use image_share_gateway::domain::{Caller, Change, Operation, Principal, RequestId, Stopwatch};
use image_share_gateway::telemetry::Metrics;

/// A P-256 key made for the benches alone.
const KEYS: &str = include_str!("../shared/keys.json");
const ISSUER: &str = "https://bench.example";
const AUDIENCE: &str = "image-share-gateway";

/// What policies see of the caller.
const CLAIMS: [(&str, &str); 3] = [
    ("repository", "acme/images"),
    ("environment", "production"),
    ("event_name", "push"),
];

const TOKENS: usize = 1000;
const ROUNDS: usize = 9;
const DECISIONS: usize = 5000;

fn main() {
    let mut missed = false;
    let mut mark = |what: &str, ratio: f64, most: f64| {
        let holds = ratio <= most;
        missed |= !holds;
        let word = if holds { "holds " } else { "MISSED" };
        println!("{word} {what} at most {most}: {ratio:.3}");
    };
    let [first, again, of_five] = tokens();
    println!("an ES256 token for the first time     {first:>9.2} µs");
    println!("the same token again                  {again:>9.2} µs");
    println!("the same with five issuers            {of_five:>9.2} µs");
    let [ours, bare, without] = decisions(&worked_example());
    println!("a decision by the worked example      {ours:>9.2} µs");
    println!("Cedar's is_authorized alone           {bare:>9.2} µs");
    println!("a decision without policies           {without:>9.2} µs");
    let [by_claims, bare_by_claims, _] = decisions(BY_CLAIMS);
    println!("a decision by claims                  {by_claims:>9.2} µs");
    println!("Cedar's is_authorized alone           {bare_by_claims:>9.2} µs");
    mark(
        "a token again over the first time",
        again / first,
        1.0 / 20.0,
    );
    mark(
        "a token again with five issuers over one",
        of_five / again,
        1.05,
    );
    mark("a decision over Cedar's own", ours / bare, 1.3);
    mark(
        "a decision by claims over Cedar's own",
        by_claims / bare_by_claims,
        1.3,
    );
    mark(
        "a decision without policies over one with",
        without / ours,
        0.1,
    );
    std::process::exit(i32::from(missed));
}

/// Policies that ask for claims.
const BY_CLAIMS: &str = r#"
@id("pipelines-share")
permit (principal, action == Action::"share", resource is Image)
when {
    resource.image_id like "vision-*" &&
    principal.hasTag("repository") && principal.getTag("repository") == "acme/images" &&
    principal.hasTag("environment") && principal.getTag("environment") == "production"
};
@id("never-by-pull-request")
forbid (principal, action, resource)
when { principal.hasTag("event_name") && principal.getTag("event_name") == "pull_request" };
"#;

fn iss(issuer: usize) -> String {
    format!("{ISSUER}/{issuer}")
}

fn authenticator(issuers: usize) -> Authenticator {
    let of = |number: usize| Issuer {
        name: (number > 0).then(|| format!("issuer-{number}").parse().unwrap()),
        ..Issuer::first(&iss(number), AUDIENCE, KeySource::Sandbox)
    };
    let auth = Auth {
        first: of(0),
        further: (1..issuers).map(of).collect(),
        leeway: Duration::from_secs(30),
    };
    let authenticator = Authenticator::new(&auth, Metrics::new());
    for issuer in auth.issuers() {
        let keys = KeySet::parse(KEYS).unwrap();
        authenticator.use_keys(issuer.name.as_ref(), keys);
    }
    authenticator
}

/// Microseconds for a token: for the first time, again, and again with five issuers.
fn tokens() -> [f64; 3] {
    let mint = Mint::from_set(KEYS, None).unwrap();
    let signed = |issuers: usize| -> Vec<String> {
        let token = |number: usize| {
            let subject = format!("team-{number}");
            let grant = Grant {
                subject: &subject,
                scope: "shares:read shares:write",
                issuer: &iss(number % issuers),
                audience: AUDIENCE,
                ttl: Duration::from_hours(1),
            };
            mint.sign(&grant).unwrap()
        };
        (0..TOKENS).map(token).collect()
    };
    let micros = |authenticator: &Authenticator, tokens: &[String]| {
        let begun = Instant::now();
        for token in tokens {
            black_box(authenticator.authenticate(token).unwrap());
        }
        begun.elapsed().as_secs_f64() * 1e6 / tokens.len() as f64
    };
    let (of_one, of_five) = (signed(1), signed(5));
    let (one, five) = (authenticator(1), authenticator(5));
    micros(&one, &of_one);
    micros(&five, &of_five);
    let mut figures = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        figures[0].push(micros(&authenticator(1), &of_one));
        // Interleaved, and often: each is over in a millisecond.
        for _ in 0..ROUNDS {
            figures[1].push(micros(&one, &of_one));
            figures[2].push(micros(&five, &of_five));
        }
    }
    figures.map(median)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The first worked example of the page on policies.
fn worked_example() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policies.md");
    let page = std::fs::read_to_string(page).unwrap();
    let begin = "<!-- policies: team-images -->\n```cedar\n";
    let (_, rest) = page.split_once(begin).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// Microseconds for a decision: ours, Cedar's alone, and ours without policies.
fn decisions(text: &str) -> [f64; 3] {
    let texts = |texts: &[&str]| -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    };
    let caller = Caller {
        principal: Arc::new(Principal {
            scopes: texts(&["shares:read", "shares:write"]),
            groups: texts(&["vision", "everybody", "engineering"]),
            claims: CLAIMS
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..Principal::of_first_issuer("team-a", ISSUER)
        }),
        client_ip: "10.20.30.40".parse().ok(),
        user_agent: None,
        request_id: RequestId::generate(),
        trace_id: None,
        since_arrival: Stopwatch::start(),
    };
    let change = Change {
        operation: Operation::Share,
        image_id: "vision-7".parse().unwrap(),
        account_id: 100_000_001.try_into().unwrap(),
        region: "cn-wlcb".parse().unwrap(),
        reason: Some("OPS-17".parse().unwrap()),
    };
    let decide = |authorizer: &Authorizer| {
        for _ in 0..DECISIONS {
            let decision = authorizer.decide(black_box(&caller), Request::Change(&change));
            assert!(matches!(black_box(decision), Decision::Allowed { .. }));
        }
    };
    let with = Authorizer::new(Some(Policies::parse(text).unwrap()), Metrics::new());
    let without = Authorizer::new(None, Metrics::new());
    let bare = bare_cedar(text, &caller, &change);
    // Interleaved, so that a machine that slows down slows all.
    let mut figures = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        figures[0].push(micros_once(|| decide(&with)));
        figures[1].push(micros_once(&bare));
        figures[2].push(micros_once(|| decide(&without)));
    }
    figures.map(median)
}

fn micros_once(round: impl Fn()) -> f64 {
    let begun = Instant::now();
    round();
    begun.elapsed().as_secs_f64() * 1e6 / DECISIONS as f64
}

/// `is_authorized` with the same policies, entities and request, all made before.
fn bare_cedar(text: &str, caller: &Caller, change: &Change) -> impl Fn() {
    let uid = |text: &str| -> EntityUid { text.parse().unwrap() };
    let string = |text: &str| RestrictedExpression::new_string(text.to_owned());
    let principal = &caller.principal;
    let subject = uid(&format!("Subject::\"{}\"", principal.subject));
    let image = uid(&format!("Image::\"{}\"", change.image_id));
    let groups: HashSet<EntityUid> = principal
        .groups
        .iter()
        .map(|group| uid(&format!("Group::\"{group}\"")))
        .collect();
    let scopes = RestrictedExpression::new_set(principal.scopes.iter().map(|scope| string(scope)));
    let of_subject = HashMap::from([
        ("scopes".to_owned(), scopes),
        ("subject".to_owned(), string(&principal.subject)),
        ("issuer".to_owned(), string(&principal.issuer)),
    ]);
    let claims = principal.claims.iter();
    let tags = claims.map(|(name, value)| (name.clone(), string(value)));
    let of_image = HashMap::from([
        ("image_id".to_owned(), string(change.image_id.as_str())),
        ("region".to_owned(), string(change.region.as_str())),
    ]);
    let entities = [
        Entity::new_with_tags(subject.clone(), of_subject, groups, tags).unwrap(),
        Entity::new(image.clone(), of_image, HashSet::new()).unwrap(),
    ];
    let entities = Entities::from_entities(entities, None).unwrap();
    let account = i64::try_from(change.account_id.get()).unwrap();
    let context = Context::from_pairs([
        (
            "account_id".to_owned(),
            RestrictedExpression::new_long(account),
        ),
        ("region".to_owned(), string(change.region.as_str())),
        (
            "client_ip".to_owned(),
            RestrictedExpression::new_ip("10.20.30.40"),
        ),
        ("reason".to_owned(), string("OPS-17")),
    ])
    .unwrap();
    let request =
        CedarRequest::new(subject, uid("Action::\"share\""), image, context, None).unwrap();
    let policies: PolicySet = text.parse().unwrap();
    let cedar = Cedar::new();
    move || {
        for _ in 0..DECISIONS {
            let response = cedar.is_authorized(black_box(&request), &policies, &entities);
            assert_eq!(
                black_box(response).decision(),
                cedar_policy::Decision::Allow
            );
        }
    }
}
