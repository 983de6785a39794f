//! A portal as a community runs it: others join through its list, and strangers watch through it.

use std::io::Read;

use crate::harness::{Network, Node, SOON, Scratch, http, wait_until};

#[test]
fn others_join_through_a_portal_and_strangers_see_and_watch_what_is_live() {
    let scratch = Scratch::new("portal");
    let listen = "/ip4/127.0.0.1/tcp/0";
    let args = ["run", "--role", "supernode", "--listen", listen];
    let args = [&args[..], &["--portal", "127.0.0.1:0", "--portal-viewers", "1"]].concat();
    let network = Network::around(Node::start("portal", &args));
    let portal = network.supernode.ready("portal");
    // Given nothing but the portal's URL, a node finds the network.
    let join = ["--role", "member", "--listen", listen, "--bootstrap", portal.as_str()];
    let member = Node::start("member", &[&["run"][..], &join].concat());
    let joined = member.wait("status", SOON, |status| status["supernode"].is_string());
    assert_eq!(joined["supernode"], *network.supernode.id());
    let source = network.publish("open", &scratch.file("cut.flv"), &["--bitrate", "340kbit"]);
    let id = source.node.ready("stream_id");
    wait_until("the stream is on the portal's page", SOON, || {
        let (_, body) = http(&portal, "GET", "/streams", None, None);
        body.contains(&id)
    });
    let watch = format!("{portal}/live/{id}.flv");
    let mut picture = ureq::get(&watch).call().unwrap().into_body().into_reader();
    let mut head = vec![0; 200_000];
    picture.read_exact(&mut head).unwrap();
    assert_eq!(&head[..3], b"FLV");
    // Nothing of the node's control is there, not even with its token.
    let control = format!("{portal}/api/v1/node");
    let refused = ureq::get(&control).call().unwrap_err().to_string();
    assert!(refused.contains("404"), "{refused}");
}
