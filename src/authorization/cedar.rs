//! Policies in Cedar: read, held against the schema, and asked.
//!
//! A policy is named by its `@id`, which stands in the trail and in problems, never its text. What the policies see
//! of a request is fixed by the schema beside this file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};

use cedar_policy::{
    AuthorizationError, Authorizer, Context, Decision as Cedar, Effect, Entities, Entity, EntityId,
    EntityTypeName, EntityUid, Policy, PolicyId, PolicySet, Request as CedarRequest, Response,
    RestrictedExpression, Schema, ValidationMode, Validator,
};
use cedar_policy_core::ast::{self, Value};
use foldhash::fast::RandomState;
use miette::Diagnostic;
use moka::sync::Cache;

use crate::domain::{Caller, Change, ImageId, Operation, Principal, Region};

use super::{Decision, Refusal, Request};

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    let (schema, _) = Schema::from_cedarschema_str(include_str!("schema.cedarschema"))
        .expect("the schema is part of the program, and every test reads it");
    Validator::new(schema)
});

static TYPES: LazyLock<Types> = LazyLock::new(Types::new);

/// What prepared entities may take together, roughly.
const PREPARED_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// What a subject with an image takes besides its groups, scopes and claims, and each of those.
const PREPARED_BYTES: usize = 1024;
const MEMBER_BYTES: usize = 200;

/// What is wrong with policies, every fault with where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct PolicyFaults(pub Vec<String>);

/// Policies that fit the schema.
pub struct Policies {
    set: PolicySet,
    authorizer: Authorizer,
    warnings: Vec<String>,
    prepared: Cache<EntitiesKey, Arc<Prepared>, RandomState>,
}

/// Whose entities, and on what. A principal is known by where it lies: [`Prepared`] holds it there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct EntitiesKey {
    principal: usize,
    image: Option<(Region, ImageId)>,
    client_ip: IpAddr,
}

/// The entities of a request, made once for many requests alike.
struct Prepared {
    principal: Arc<Principal>,
    /// Reading an address costs as much as the rest of a decision.
    client_ip: Value,
    region: Option<Value>,
    subject: EntityUid,
    resource: EntityUid,
    entities: Entities,
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.set.policies().map(Policy::id))
            .finish()
    }
}

/// The names of the schema, parsed once.
struct Types {
    subject: EntityTypeName,
    group: EntityTypeName,
    image: EntityTypeName,
    trail: EntityUid,
    share: EntityUid,
    unshare: EntityUid,
    list_shares: EntityUid,
    read_audit: EntityUid,
}

impl Types {
    fn new() -> Self {
        let of = |name: &str| -> EntityTypeName {
            name.parse()
                .expect("the names of the schema are identifiers")
        };
        let action = |id| EntityUid::from_type_name_and_id(of("Action"), EntityId::new(id));
        Self {
            subject: of("Subject"),
            group: of("Group"),
            image: of("Image"),
            trail: EntityUid::from_type_name_and_id(of("AuditLog"), EntityId::new("audit")),
            share: action("share"),
            unshare: action("unshare"),
            list_shares: action("listShares"),
            read_audit: action("readAudit"),
        }
    }
}

impl Policies {
    /// Reads policies and holds them against the schema.
    ///
    /// # Errors
    /// Every fault, with line and column where there is one.
    pub fn parse(text: &str) -> Result<Self, PolicyFaults> {
        let set: PolicySet = text.parse().map_err(|errors: cedar_policy::ParseErrors| {
            PolicyFaults(errors.iter().map(|error| located(text, error)).collect())
        })?;
        if set.templates().next().is_some() {
            return Err(PolicyFaults(vec![
                "holds a template (`?principal` or `?resource`), which nothing fills in".into(),
            ]));
        }
        let set = named(&set)?;
        let checked = VALIDATOR.validate(&set, ValidationMode::Strict);
        let faults: Vec<String> = checked
            .validation_errors()
            .map(|error| located(text, error))
            .collect();
        if !faults.is_empty() {
            return Err(PolicyFaults(faults));
        }
        let prepared = Cache::builder()
            .max_capacity(PREPARED_BYTES_MAX)
            .weigher(|_: &EntitiesKey, prepared: &Arc<Prepared>| prepared.weight())
            .build_with_hasher(RandomState::default());
        let warnings = checked.validation_warnings();
        Ok(Self {
            warnings: warnings.map(|warning| located(text, warning)).collect(),
            set,
            authorizer: Authorizer::new(),
            prepared,
        })
    }

    /// What is odd about them although they can be used.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What the policies say of a request.
    pub(super) fn decide(&self, caller: &Caller, request: Request<'_>) -> Decision {
        let asked = self.prepared(caller, request).and_then(|prepared| {
            let (action, context) = action_and_context(&prepared, request);
            let (subject, resource) = (prepared.subject.clone(), prepared.resource.clone());
            let asked = CedarRequest::new(subject, action.clone(), resource, context, None);
            Ok((asked.map_err(|error| error.to_string())?, prepared))
        });
        let (asked, prepared) = match asked {
            Ok(asked) => asked,
            Err(error) => {
                tracing::error!(
                    error.message = error,
                    "a request cannot be put to the policies; it is refused"
                );
                return forbidden(Vec::new());
            }
        };
        let response = self
            .authorizer
            .is_authorized(&asked, &self.set, &prepared.entities);
        self.judge(&response)
    }

    fn judge(&self, response: &Response) -> Decision {
        // Cedar leaves a policy out that fails while it is evaluated. A `permit` that is left out permits nothing;
        // a `forbid` must not be passed so.
        let mut failed = Vec::new();
        for error in response.diagnostics().errors() {
            let AuthorizationError::PolicyEvaluationError(error) = error;
            let id = error.policy_id();
            tracing::error!(policy.id = %id, error.message = %error, "a policy could not be evaluated");
            let forbids = self
                .set
                .policy(id)
                .is_none_or(|policy| policy.effect() == Effect::Forbid);
            if forbids {
                failed.push(name(id));
            }
        }
        let mut policy_ids: Vec<String> = response.diagnostics().reason().map(name).collect();
        match response.decision() {
            Cedar::Allow if failed.is_empty() => {
                policy_ids.sort_unstable();
                Decision::Allowed { policy_ids }
            }
            Cedar::Allow => forbidden(failed),
            Cedar::Deny => {
                policy_ids.extend(failed);
                forbidden(policy_ids)
            }
        }
    }

    fn prepared(&self, caller: &Caller, request: Request<'_>) -> Result<Arc<Prepared>, String> {
        let image = match request {
            Request::Change(Change {
                region, image_id, ..
            })
            | Request::ListShares { region, image_id } => Some((region.clone(), image_id.clone())),
            Request::ReadAudit => None,
        };
        let asked = EntitiesKey {
            principal: Arc::as_ptr(&caller.principal).addr(),
            image,
            // Nothing that a policy trusts is the unspecified address.
            client_ip: caller.client_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
        };
        if let Some(prepared) = self.prepared.get(&asked) {
            return Ok(prepared);
        }
        let principal = Arc::clone(&caller.principal);
        let prepared = Prepared::new(principal, asked.image.as_ref(), asked.client_ip)?;
        let prepared = Arc::new(prepared);
        self.prepared.insert(asked, Arc::clone(&prepared));
        Ok(prepared)
    }
}

/// A policy's name as its `@id` writes it; displayed it would be escaped.
fn name(id: &PolicyId) -> String {
    let name: &str = id.as_ref();
    name.to_owned()
}

fn forbidden(mut policy_ids: Vec<String>) -> Decision {
    policy_ids.sort_unstable();
    Decision::Refused(Refusal::Forbidden { policy_ids })
}

impl Prepared {
    fn new(
        principal: Arc<Principal>,
        image: Option<&(Region, ImageId)>,
        client_ip: IpAddr,
    ) -> Result<Self, String> {
        let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
        let subject = principal.in_policies(&principal.subject);
        let subject = Types::uid(&TYPES.subject, &subject);
        let groups: HashSet<EntityUid> = principal
            .groups
            .iter()
            .map(|group| Types::uid(&TYPES.group, &principal.in_policies(group)))
            .collect();
        let scopes =
            RestrictedExpression::new_set(principal.scopes.iter().map(|scope| text(scope)));
        let attributes = HashMap::from([
            ("scopes".to_owned(), scopes),
            ("subject".to_owned(), text(&principal.subject)),
            ("issuer".to_owned(), text(&principal.issuer)),
        ]);
        let claims = principal.claims.iter();
        let tags = claims.map(|(name, value)| (name.clone(), text(value)));
        let mut all = vec![entity(subject.clone(), attributes, groups, tags.collect())];
        let resource = match image {
            None => TYPES.trail.clone(),
            Some((region, image_id)) => {
                let uid = Types::uid(&TYPES.image, image_id.as_str());
                let attributes = HashMap::from([
                    ("image_id".to_owned(), text(image_id.as_str())),
                    ("region".to_owned(), text(region.as_str())),
                ]);
                all.push(entity(
                    uid.clone(),
                    attributes,
                    HashSet::new(),
                    HashMap::new(),
                ));
                uid
            }
        };
        let entities = Entities::from_entities(all, None)
            .expect("two entities of different types, without a circle");
        Ok(Self {
            principal,
            client_ip: address(client_ip)?,
            region: image.map(|(region, _)| Value::from(region.as_str())),
            subject,
            resource,
            entities,
        })
    }

    fn weight(&self) -> u32 {
        let of = &self.principal;
        let members = of.groups.iter().chain(&of.scopes);
        let claims = of.claims.iter();
        let members = members
            .map(String::len)
            .chain(claims.map(|(name, value)| name.len() + value.len()));
        let members: usize = members.map(|bytes| MEMBER_BYTES + bytes).sum();
        let bytes = PREPARED_BYTES + 2 * (of.subject.len() + of.issuer.len()) + members;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

impl Types {
    fn uid(of: &EntityTypeName, id: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(of.clone(), EntityId::new(id))
    }
}

fn entity(
    uid: EntityUid,
    attributes: HashMap<String, RestrictedExpression>,
    parents: HashSet<EntityUid>,
    tags: HashMap<String, RestrictedExpression>,
) -> Entity {
    Entity::new_with_tags(uid, attributes, parents, tags).expect("texts and sets of texts evaluate")
}

/// What a request is, and what else policies see of it.
fn action_and_context(prepared: &Prepared, request: Request<'_>) -> (&'static EntityUid, Context) {
    let mut values = BTreeMap::from([("client_ip".into(), prepared.client_ip.clone())]);
    if let Some(region) = &prepared.region {
        values.insert("region".into(), region.clone());
    }
    let action = match request {
        Request::Change(change) => {
            let account_id = i64::try_from(change.account_id.get()).unwrap_or(i64::MAX);
            values.insert("account_id".into(), Value::from(account_id));
            if let Some(reason) = &change.reason {
                values.insert("reason".into(), Value::from(reason.as_str()));
            }
            match change.operation {
                Operation::Share => &TYPES.share,
                Operation::Unshare => &TYPES.unshare,
            }
        }
        Request::ListShares { .. } => &TYPES.list_shares,
        Request::ReadAudit => &TYPES.read_audit,
    };
    (action, Context::from(ast::Context::Value(Arc::new(values))))
}

/// An address as Cedar has it.
fn address(ip: IpAddr) -> Result<Value, String> {
    let pair = (
        "ip".to_owned(),
        RestrictedExpression::new_ip(ip.to_string()),
    );
    let context = Context::from_pairs([pair]).map_err(|error| error.to_string())?;
    let ast::Context::Value(values) = context.as_ref() else {
        return Err("an address has no value".into());
    };
    let value = values.get("ip").cloned();
    value.ok_or_else(|| "an address has no value".into())
}

/// The same policies under the names that their `@id`s give them.
fn named(set: &PolicySet) -> Result<PolicySet, PolicyFaults> {
    let mut by_id: BTreeMap<String, Policy> = BTreeMap::new();
    let mut faults = Vec::new();
    for policy in set.policies() {
        let id = policy
            .annotation("id")
            .map_or_else(|| policy.id().to_string(), str::to_owned);
        if id.trim().is_empty() || id.contains(char::is_control) {
            faults.push("a policy's @id must be a name in one line".to_owned());
        } else if by_id.contains_key(&id) {
            faults.push(format!("two policies are named `{id}`"));
        } else {
            by_id.insert(id.clone(), policy.new_id(PolicyId::new(id)));
        }
    }
    if !faults.is_empty() {
        return Err(PolicyFaults(faults));
    }
    PolicySet::from_policies(by_id.into_values())
        .map_err(|error| PolicyFaults(vec![error.to_string()]))
}

/// What is wrong, behind the line and column where it is.
fn located(text: &str, fault: &(impl Diagnostic + ?Sized)) -> String {
    let offset = fault
        .labels()
        .and_then(|mut labels| labels.next())
        .map(|label| label.offset())
        .filter(|offset| text.is_char_boundary(*offset));
    let Some(before) = offset.map(|offset| &text[..offset]) else {
        return fault.to_string();
    };
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    format!("line {line}, column {column}: {fault}")
}
