//! The owner's images.

use std::collections::BTreeSet;

use crate::support::{Gateway, Reply, Scripted, refusal};

#[tokio::test(flavor = "multi_thread")]
async fn images_come_page_by_page_behind_one_cursor() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let gateway = Gateway::in_front_of(&upstream.url, &[("upstream.zone", "cn-wlcb-01")]).await;
    let (mut seen, mut path, mut pages) = (BTreeSet::new(), "/images".to_owned(), 0);
    loop {
        let answer = gateway.caller("shares:read").get(&path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let page = answer.json();
        for image in page["images"].as_array().unwrap() {
            assert!(seen.insert(image["image_id"].as_str().unwrap().to_owned()));
            assert!(image["name"].is_null() && image["created_at"].is_null());
        }
        pages += 1;
        let Some(cursor) = page["next_cursor"].as_str() else {
            assert!(answer.header("link").is_none());
            break;
        };
        let link = answer.header("link").unwrap();
        let (target, relation) = link.split_once('>').unwrap();
        assert_eq!(relation, "; rel=\"next\"");
        assert!(target.contains(cursor));
        path = format!("/images{}", target.trim_start_matches('<'));
    }
    assert_eq!((seen.len(), pages), (250, 3));
    for call in upstream.calls() {
        assert_eq!(call.action(), "DescribeCompShareCustomImages");
        assert_eq!(call.fields["Zone"], "cn-wlcb-01");
        assert_eq!(call.fields["Limit"], "100");
    }
    let few = gateway
        .caller("shares:read")
        .get("/images?limit=3")
        .await
        .json();
    assert_eq!(few["images"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_lists_its_images_and_those_that_were_named() {
    let gateway = Gateway::spawn().await;
    let sharer = gateway.sharer();
    assert_eq!(sharer.put("/images/my-own/shares/7").await.status, 200);
    let page = sharer.get("/images").await.json();
    let ids: Vec<&str> = page["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| image["image_id"].as_str().unwrap())
        .collect();
    assert_eq!(
        ids,
        [
            "compshareImage-sandbox1",
            "compshareImage-sandbox2",
            "compshareImage-sandbox3",
            "my-own"
        ]
    );
    assert!(page["next_cursor"].is_null());
    let one = sharer.get("/images/compshareImage-sandbox2").await;
    let expected = serde_json::json!({"image_id": "compshareImage-sandbox2", "name": "sandbox2", "status": "Available",
        "description": "an image of the sandbox", "size_mb": 20480, "created_at": "2026-01-01T00:00:00.000000Z"});
    assert_eq!((one.status, one.json()), (200, expected));
    let absent = sharer.get("/images/compshareImage-other").await;
    assert_eq!(absent.assert_problem(404, "not-found").get("effect"), None);
    assert_eq!(gateway.events().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_or_not_allowed_never_reaches_the_upstream() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    for path in [
        "/images?limit=0",
        "/images?limit=101",
        "/images?limit=+5",
        "/images?limit=x",
        "/images?cursor=x",
        "/images?cursor=",
        "/images?region=us-den",
        "/images?colour=blue",
        "/images/.x",
        "/images/img?region=no",
    ] {
        gateway
            .sharer()
            .get(path)
            .await
            .assert_problem(400, "invalid-request");
    }
    for path in ["/images", "/images/img"] {
        gateway
            .caller("shares:write")
            .get(path)
            .await
            .assert_problem(403, "insufficient-scope");
        gateway
            .nobody()
            .get(path)
            .await
            .assert_problem(401, "unauthenticated");
    }
    // A cursor belongs to its region.
    let page = gateway.sharer().get("/images").await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let elsewhere = format!("/images?region=cn-sh2&cursor={cursor}");
    gateway
        .sharer()
        .get(&elsewhere)
        .await
        .assert_problem(400, "invalid-request");
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_is_tried_again_and_then_told_as_it_is() {
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let upstream = Scripted::start(move |call| {
        match turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => Reply::Status(503),
            1 => refusal(150, "later"),
            _ if call.fields.contains_key("CompShareImageId") => {
                refusal(230, "Params [CompShareImageId] not available")
            }
            _ => Reply::Done,
        }
    })
    .await;
    let gateway = Gateway::with_upstream(&upstream).await;
    assert_eq!(gateway.sharer().get("/images").await.status, 200);
    assert_eq!(upstream.calls().len(), 3);
    gateway
        .sharer()
        .get("/images/img")
        .await
        .assert_problem(404, "not-found");
    assert_eq!(
        upstream.calls().len(),
        4,
        "what will not heal is not repeated"
    );
}
