//! What the API shows: pages of lists, the graph, settings with their revision, devices.

use std::io::Write;

use super::*;
use crate::{
    api::dto::{Check, DeviceDto, Verdict},
    edge::ports::MediaItem,
};

#[tokio::test]
async fn lists_come_in_pages_and_streams_are_found_by_their_words() {
    let server = server().await;
    let first = server.raw("GET", "/api/v1/streams?limit=1", "", "").await.json();
    assert_eq!(first["streams"][0]["id"], json!(LISTED));
    assert_eq!(first["next"], json!(LISTED));
    let path = format!("/api/v1/streams?limit=1&after={LISTED}");
    let second = server.raw("GET", &path, "", "").await.json();
    assert_eq!(second["streams"][0]["id"], json!(WATCHED));
    assert_eq!(second["next"], Value::Null);
    let found = server.raw("GET", "/api/v1/streams?q=POND%20flowers", "", "").await.json();
    assert_eq!(found["streams"].as_array().unwrap().len(), 1);
    assert_eq!(found["streams"][0]["name"], "pond");
    let tickets = server.raw("GET", "/api/v1/tickets?limit=1", "", "").await.json();
    assert_eq!(tickets["next"], tickets["tickets"][0]["key"]);
    for wrong in ["limit=x", "page=2", "limit=-1"] {
        let answer = server.raw("GET", &format!("/api/v1/peers?{wrong}"), "", "").await;
        assert_eq!(answer.status, 422, "{wrong}");
    }
}

#[tokio::test]
async fn the_graph_joins_nodes_and_streams_by_what_each_edge_means() {
    let server = server().await;
    let graph = server.raw("GET", "/api/v1/graph", "", "").await.json();
    let me = NodeId([3; 32]);
    assert_eq!(graph["me"], json!(me));
    let kinds: Vec<_> = graph["nodes"].as_array().unwrap().iter().map(|n| &n["kind"]).collect();
    assert_eq!(kinds, ["self", "supernode"]);
    let edge = |kind: &str| {
        let edges = graph["edges"].as_array().unwrap();
        edges.iter().filter(|edge| edge["kind"] == kind).cloned().collect::<Vec<_>>()
    };
    assert_eq!(edge("registration")[0]["from"], json!(me));
    assert_eq!(edge("source").len(), 2);
    assert_eq!((&edge("live")[0]["from"], &edge("live")[0]["to"]), (&json!(PEER), &json!(me)));
    // One ticket is held beside the parent's, one is given and no bytes flow on it.
    assert_eq!(edge("standby").len(), 2);
    let path = format!("/api/v1/graph?stream={LISTED}");
    let part = server.raw("GET", &path, "", "").await.json();
    assert_eq!(part["streams"].as_array().unwrap().len(), 1);
    assert_eq!(part["edges"].as_array().unwrap().len(), 1);
    assert_eq!(server.raw("GET", "/api/v1/graph?stream=xyz", "", "").await.status, 404);
}

#[tokio::test]
async fn settings_change_only_as_the_client_last_saw_them() {
    let server = server().await;
    let before = server.raw("GET", "/api/v1/settings", "", "").await;
    assert!(before.head.contains("etag: \"0\""), "{}", before.head);
    let patch = json!({"max_copies": 2}).to_string();
    let with = |tag: &str| {
        let auth = format!("Authorization: Bearer {}\r\n", server.token);
        format!("{auth}Content-Type: application/json\r\nIf-Match: {tag}\r\n")
    };
    let path = "/api/v1/settings";
    let changed = server.raw("PATCH", path, &with("\"0\""), &patch).await;
    assert_eq!((changed.status, &changed.json()["revision"]), (200, &json!(1)));
    let stale = server.raw("PATCH", path, &with("\"0\""), &patch).await;
    assert_eq!((stale.status, &stale.json()["code"]), (412, &json!("changed")));
    assert_eq!(server.raw("PATCH", path, &with("\"0\", \"1\""), &patch).await.status, 200);
    assert_eq!(server.raw("PATCH", path, &with("*"), &patch).await.status, 200);
}

#[tokio::test]
async fn devices_are_those_that_the_program_sees() {
    let server = server().await;
    assert_eq!(server.raw("GET", "/api/v1/devices", "", "").await.status, 503);
    let camera = DeviceDto {
        kind: "camera".into(),
        id: "/dev/video0".into(),
        name: "Camera".into(),
        modes: vec!["1280x720".into()],
    };
    server.local.offer_devices(Arc::new(move || Ok(vec![camera.clone()])));
    let devices = server.raw("GET", "/api/v1/devices", "", "").await.json();
    assert_eq!(devices["devices"][0]["id"], "/dev/video0");
}

#[tokio::test]
async fn statistics_say_who_would_step_in() {
    let server = server().await;
    let path = format!("/api/v1/streams/{WATCHED}/stats");
    let stats = server.raw("GET", &path, "", "").await.json();
    assert_eq!(stats["standbys"], json!([{"stripe": 1, "node": PEER}]));
    assert_eq!(
        (&stats["audience"]["viewers"], &stats["audience"]["scope"]),
        (&json!(3), &json!("directory"))
    );
    assert_eq!(stats["audience"]["below"]["delay_p95_ms"], Value::Null);
    assert_eq!(stats["failovers"], 0);
}

#[tokio::test]
async fn the_figures_of_the_node_are_there_for_prometheus() {
    let server = server().await;
    let answer = server.raw("GET", "/metrics", "", "").await;
    assert!(answer.head.contains("application/openmetrics-text"), "{}", answer.head);
    for wanted in [
        "astral_nodes{state=\"connected\"} 1",
        "astral_traffic_bytes_total{direction=\"out\",class=\"media\"} 90",
        "astral_driver_total{what=\"overflows\"} 3",
        "astral_uplink_bits_per_second{kind=\"usable\"} 6000000.0",
        "astral_stream_bytes_total{stream=\"pond (02020202)\",role=\"watching\"} 77",
        "process_resident_memory_bytes",
        "# EOF",
    ] {
        assert!(answer.body.contains(wanted), "no {wanted} in\n{}", answer.body);
    }
}

#[tokio::test]
async fn a_page_may_run_and_reach_nothing_but_what_is_ours() {
    let server = server().await;
    let page = server.raw("GET", "/", "", "").await;
    assert_eq!(page.status, 200);
    let policy = format!("connect-src 'self' ws://{}", server.host());
    for wanted in [
        "content-type: text/html",
        "default-src 'none'; script-src 'self'",
        &policy,
        "frame-ancestors 'none'",
        "permissions-policy: camera=(self)",
        "cross-origin-opener-policy: same-origin",
    ] {
        assert!(page.head.contains(wanted), "no {wanted} in {}", page.head);
    }
    assert!(!page.head.contains("unsafe"), "{}", page.head);
    for path in ["/../Cargo.toml", "/%2e%2e/Cargo.toml", "/nothing", "/assets/", "//etc/passwd"] {
        assert_eq!(server.raw("GET", path, "", "").await.status, 404, "{path}");
    }
    assert_eq!(server.raw("POST", "/", "", "").await.status, 401);
    assert_eq!(server.ask("POST", "/", None).await.status, 404);
}

#[tokio::test]
async fn the_api_describes_itself() {
    let server = server().await;
    let document = server.raw("GET", "/api/v1/openapi.json", "", "").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/streams/{id}"]["get"].is_object());
}

#[tokio::test]
async fn an_own_stream_is_changed_paused_and_ended_and_no_other_is() {
    let server = server().await;
    let theirs = format!("/api/v1/streams/{LISTED}");
    let patch = json!({"title": "Mine now"});
    let refused = server.ask("PATCH", &theirs, Some(patch.clone())).await;
    assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("not_yours")));
    assert_eq!(server.ask("DELETE", &theirs, None).await.status, 409);
    let new = json!({"name": "third", "source": "rtmp"});
    let made = server.ask("POST", "/api/v1/streams", Some(new)).await.json();
    let path = format!("/api/v1/streams/{}", made["id"].as_str().unwrap());
    let changed = server.ask("PATCH", &path, Some(patch)).await;
    assert_eq!((changed.status, &changed.json()["title"]), (200, &json!("Mine now")));
    let paused = server.ask("PATCH", &path, Some(json!({"paused": true}))).await.json();
    assert_eq!((&paused["paused"], &paused["own"]), (&json!(true), &json!(true)));
    let auth = format!("Authorization: Bearer {}\r\n", server.token);
    let stale = format!("{auth}Content-Type: application/json\r\nIf-Match: \"9.9.9\"\r\n");
    assert_eq!(server.raw("PATCH", &path, &stale, "{\"paused\": false}").await.status, 412);
    let wrong = server.ask("PATCH", &path, Some(json!({"rate": 1}))).await;
    assert_eq!(wrong.status, 422);
    let short = &made["id"].as_str().unwrap()[..8];
    let done = server.done();
    assert_eq!(done[1..], [format!("edit {short} Mine now []"), format!("pause {short} true")]);
}

#[tokio::test]
async fn a_stream_of_the_page_says_where_the_page_fills_it() {
    let server = server().await;
    let new = json!({"name": "third", "source": "browser"});
    let made = server.ask("POST", "/api/v1/streams", Some(new)).await.json();
    let wanted = format!("ws://{}/publish/{}", server.host(), made["id"].as_str().unwrap());
    assert_eq!(made["ws_publish"], wanted);
    assert!(
        server.raw("GET", "/api/v1/node", "", "").await.json()["sources"]
            .as_array()
            .unwrap()
            .contains(&json!("browser"))
    );
}

#[tokio::test]
async fn the_doctors_report_and_the_log_are_for_the_tokens_owner() {
    let server = server().await;
    for path in ["/api/v1/doctor", "/api/v1/logs"] {
        assert_eq!(server.raw("GET", path, "", "").await.status, 401, "{path}");
    }
    assert_eq!(server.ask("GET", "/api/v1/doctor", None).await.status, 503, "nobody examines");
    let check = |verdict| Check {
        name: "clock".into(),
        verdict,
        message: "it says 1970".into(),
        fix: Some("set it".into()),
    };
    let checks = vec![check(Verdict::Warn), check(Verdict::Bad)];
    server.local.offer_doctor(Arc::new(move || {
        let checks = checks.clone();
        Box::pin(async move { checks })
    }));
    let report = server.ask("GET", "/api/v1/doctor", None).await.json();
    assert_eq!((&report["ok"], &report["checks"][1]["verdict"]), (&json!(false), &json!("bad")));
    writeln!(server.log.clone(), "first\nsecond").unwrap();
    let log = server.ask("GET", "/api/v1/logs?lines=1", None).await.json();
    assert_eq!(log, json!({"lines": ["second"]}));
    for wrong in ["lines=0", "lines=1001", "lines=x", "line=1"] {
        let answer = server.ask("GET", &format!("/api/v1/logs?{wrong}"), None).await;
        assert_eq!(answer.status, 422, "{wrong}");
    }
}

#[tokio::test]
async fn a_recording_runs_from_its_post_to_its_delete_in_the_nodes_folder_alone() {
    let server = server().await;
    let path = format!("/api/v1/streams/{WATCHED}/record");
    let refused = server.ask("POST", &path, None).await;
    assert_eq!((refused.status, refused.json()["code"].clone()), (409, json!("no_folder")));
    let folder = tempfile::tempdir().unwrap();
    server.local.allow_recording(folder.path().join("films"));
    for (body, status) in [
        (json!({"folder": "/etc"}), 422),
        (json!({"format": "avi"}), 422),
        (json!({"segment_s": 0}), 422),
        (json!({"bytes_max": 1}), 422),
    ] {
        assert_eq!(server.ask("POST", &path, Some(body.clone())).await.status, status, "{body}");
    }
    let unknown = format!("/api/v1/streams/{}/record", StreamId([8; 32]));
    assert_eq!(server.ask("POST", &unknown, None).await.status, 404);
    assert_eq!(server.ask("DELETE", &path, None).await.status, 404);
    let started = server.ask("POST", &path, None).await.json();
    assert_eq!(started["folder"], json!(folder.path().join("films")));
    let source = server.streams.newest();
    let shown = format!("/api/v1/streams/{WATCHED}");
    let init =
        b"FLV\x01\x01\0\0\0\x09\0\0\0\0\x09\0\0\x16\0\0\0\0\0\0\0\x17\0\0\0\0\x01\x42\xc0\x1e\
        \xff\xe1\0\x04\x67\x42\xc0\x1e\x01\0\x02\x68\xce\0\0\0\x21";
    let picture = b"\x09\0\0\x0a\0\0\0\0\0\0\0\x17\x01\0\0\0\0\0\0\x01\x65\0\0\0\x15";
    let sent = init.len() + picture.len();
    source.send(MediaItem::Flv(Bytes::from_static(init))).await.unwrap();
    source.send(MediaItem::Flv(Bytes::from_static(picture))).await.unwrap();
    // The way to it holds four items: when the last of these is taken, the picture is on the disk.
    for _ in 0..6 {
        source.send(MediaItem::Paused).await.unwrap();
    }
    let stream = server.raw("GET", &shown, "", "").await.json();
    assert_eq!(stream["recording"]["bytes"], sent);
    let again = server.ask("POST", &path, Some(json!({"format": "mp4"}))).await.json();
    assert_eq!((&again["format"], &again["bytes"]), (&json!("flv"), &json!(sent)));
    assert_eq!(server.streams.opened().len(), 1, "it runs once");
    let made = server.ask("DELETE", &path, None).await.json();
    let file = std::fs::read(made["files"][0].as_str().unwrap()).unwrap();
    assert!(file.starts_with(b"FLV"), "{made}");
    assert_eq!(made["bytes"], file.len());
    let stream = server.raw("GET", &shown, "", "").await.json();
    assert_eq!(stream["recording"], Value::Null);
    assert_eq!(server.ask("DELETE", &path, None).await.status, 404);
}
