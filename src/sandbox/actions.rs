//! The actions and their refusals, as the protocol's notes tell them.

use serde_json::{Value, json};

use super::Settings;
use super::ledger::Ledger;
use super::request::Call;
use super::signature;

/// Most accounts in one list of a call.
const ACCOUNTS_MAX: usize = 10;
/// Page of the image list: default and most.
const IMAGES_DEFAULT: usize = 20;
const IMAGES_MAX: usize = 100;

/// The regions that callers of the service see; another is refused.
const REGIONS: [&str; 5] = ["cn-wlcb", "cn-bj2", "cn-sh2", "cn-gd", "us-den"];

/// A refusal: RetCode and message.
type Refusal = (i64, String);

/// Answers a call; refusals too are answers with HTTP 200.
pub(super) fn answer(call: &Call, settings: &Settings, ledger: &Ledger) -> Value {
    let Some(action) = call.text("Action").filter(|action| !action.is_empty()) else {
        return refuse(None, (160, "Missing Action".to_owned()));
    };
    let answered = match action.as_str() {
        "ModifyCompShareImageShareAccount" => {
            authenticate(call, settings).and_then(|()| modify(call, ledger))
        }
        "DescribeCompShareImageShareAccounts" => {
            authenticate(call, settings).and_then(|()| describe(call, ledger))
        }
        "DescribeCompShareCustomImages" => {
            authenticate(call, settings).and_then(|()| list_images(call, ledger))
        }
        _ => Err((161, format!("Action [{action}] not exists"))),
    };
    match answered {
        Ok(mut members) => {
            members["Action"] = json!(format!("{action}Response"));
            members["RetCode"] = json!(0);
            members
        }
        Err(refusal) => refuse(Some(&action), refusal),
    }
}

fn refuse(action: Option<&str>, (code, message): Refusal) -> Value {
    let mut answer = json!({"RetCode": code, "Message": message});
    // Refusals of the key come without an Action.
    if let Some(action) = action.filter(|_| !(170..=174).contains(&code)) {
        answer["Action"] = json!(format!("{action}Response"));
    }
    answer
}

fn authenticate(call: &Call, settings: &Settings) -> Result<(), Refusal> {
    if call.text("PublicKey").as_deref() != Some(settings.public_key.as_str()) {
        return Err((172, "User Not Exists".to_owned()));
    }
    let signature = call
        .text("Signature")
        .filter(|signature| !signature.is_empty());
    let signature = signature.ok_or_else(|| (170, "Missing signature".to_owned()))?;
    if signature == signature::expected(call.parameters(), &settings.private_key) {
        Ok(())
    } else {
        Err((171, "Signature VerifyAC Error".to_owned()))
    }
}

fn modify(call: &Call, ledger: &Ledger) -> Result<Value, Refusal> {
    let (region, image) = (region(call)?, required(call, "CompShareImageId")?);
    if !Ledger::has_image(&image) {
        return Err(not_available("CompShareImageId"));
    }
    let list = |name: &str| match call.integers(name) {
        Ok(accounts) if accounts.len() <= ACCOUNTS_MAX => Ok(accounts),
        Ok(_) => Err(not_available(name)),
        Err(name) => Err(not_available(&name)),
    };
    let (add, remove) = (list("AddAccounts")?, list("RemoveAccounts")?);
    if add.is_empty() && remove.is_empty() {
        return Err(missing("AddAccounts"));
    }
    if add.iter().any(|account| remove.contains(account)) {
        return Err(not_available("RemoveAccounts"));
    }
    let mut unknown: Vec<u64> = add
        .iter()
        .chain(&remove)
        .copied()
        .filter(|account| !Ledger::has_account(*account))
        .collect();
    unknown.sort_unstable();
    unknown.dedup();
    // All or nothing: an account that does not exist undoes the whole call.
    if unknown.is_empty() {
        ledger.change(&region, &image, &add, &remove);
    }
    Ok(json!({"InvalidAccounts": unknown}))
}

fn describe(call: &Call, ledger: &Ledger) -> Result<Value, Refusal> {
    let (region, image) = (region(call)?, required(call, "CompShareImageId")?);
    if !Ledger::has_image(&image) {
        return Err(not_available("CompShareImageId"));
    }
    let accounts = ledger.accounts(&region, &image).into_iter();
    // The service sends account ids as text here.
    let entries: Vec<Value> = accounts
        .map(|account| json!({"AccountId": account.to_string(), "AccountName": format!("account-{account}")}))
        .collect();
    Ok(json!({"AccountSet": entries}))
}

fn list_images(call: &Call, ledger: &Ledger) -> Result<Value, Refusal> {
    let region = region(call)?;
    let number = |name: &str, default: usize| match call.text(name) {
        None => Ok(default),
        Some(text) => text.parse::<usize>().map_err(|_| not_available(name)),
    };
    let (offset, limit) = (number("Offset", 0)?, number("Limit", IMAGES_DEFAULT)?);
    if limit > IMAGES_MAX {
        return Err((240, "Params [Limit] too large".to_owned()));
    }
    let wanted = call.text("CompShareImageId");
    let images = ledger.images(&region).into_iter();
    let images: Vec<String> = images
        .filter(|image| wanted.as_ref().is_none_or(|wanted| wanted == image))
        .collect();
    let page: Vec<Value> = images
        .iter()
        .skip(offset)
        .take(limit)
        .map(|image| image_entry(image))
        .collect();
    Ok(json!({"ImageSet": page, "TotalCount": images.len()}))
}

fn image_entry(image: &str) -> Value {
    json!({
        "CompShareImageId": image,
        "Name": image.trim_start_matches("compshareImage-"),
        "ImageType": "Custom",
        "Status": "Available",
        "Description": "an image of the sandbox",
        "Size": 20480,
        "Visibility": 0,
        "CreateTime": 1_767_225_600,
    })
}

fn required(call: &Call, name: &str) -> Result<String, Refusal> {
    call.text(name)
        .filter(|text| !text.is_empty())
        .ok_or_else(|| missing(name))
}

fn region(call: &Call) -> Result<String, Refusal> {
    let region = required(call, "Region")?;
    if REGIONS.contains(&region.as_str()) {
        Ok(region)
    } else {
        Err(not_available("Region"))
    }
}

fn missing(name: &str) -> Refusal {
    (210, format!("Missing params [{name}]"))
}

fn not_available(name: &str) -> Refusal {
    (230, format!("Params [{name}] not available"))
}
