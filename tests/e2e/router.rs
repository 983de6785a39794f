//! A home router that speaks UPnP: what it is asked for, what `doctor` says of it, what is given back.
//!
//! Owns the router, which is this very program run once more in the router's namespace. It answers the
//! search, describes itself and says what it is told; it forwards nothing.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use crate::{
    harness::{SOON, Scratch},
    namespaces::{Host, Internet, Nat},
};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
/// The router's own address at home.
const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const SERVICE: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";
/// Names the address that the router says it has outside; set where this program is the router.
const OUTSIDE: &str = "ROUTER_OUTSIDE";

/// Lines of the router that wait for the test.
const LINES_MAX: usize = 64;

/// A router that answers in a namespace.
struct Router {
    process: Child,
    said: mpsc::Receiver<String>,
}

impl Router {
    fn start(at: &Host, outside: &str) -> Self {
        let enter = at.enter();
        let mut process = Command::new(&enter[0])
            .args(&enter[1..])
            .arg(std::env::current_exe().unwrap())
            .args(["router::answers_as_a_router", "--exact", "--ignored", "--nocapture"])
            .env(OUTSIDE, outside)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (tell, said) = mpsc::sync_channel(LINES_MAX);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        let router = Self { process, said };
        router.says("listens");
        router
    }

    /// Waits for a line with these words; gives it.
    fn says(&self, words: &str) -> String {
        loop {
            let line = self.said.recv_timeout(SOON);
            let line = line.unwrap_or_else(|_| panic!("the router never says {words:?}"));
            if line.contains(words) {
                return line;
            }
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What `doctor` says of the router, in a node that runs with this data folder.
fn verdict(home: &Host, data: &str) -> (String, String) {
    let ctl = format!("{} ctl --data-dir {data} --json doctor", env!("CARGO_BIN_EXE_astral"));
    let report: serde_json::Value = serde_json::from_str(&home.run(&ctl)).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "router (UPnP)").unwrap();
    let text = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
    (text("verdict"), text("message"))
}

const LISTEN: &str = "/ip4/0.0.0.0/tcp/4001,/ip4/0.0.0.0/udp/4001/quic-v1";

#[test]
#[ignore = "half a minute; make nat-matrix"]
fn a_router_forwards_a_port_while_the_node_runs() {
    let Some(mut internet) = Internet::new() else { return };
    let scratch = Scratch::new("router");
    let data = scratch.file("data");
    let home = internet.home("home", 11, Nat::PortRestricted);
    let router = Router::start(internet.last_router(), "1.2.3.4");
    let data = data.to_str().unwrap();
    let mut node = home.node(&["run", "--data-dir", data, "--listen", LISTEN]);
    let mut asked = [router.says("forwards"), router.says("forwards")];
    asked.sort();
    let expected = |kind: &str| format!("forwards {kind} 4001 to 192.168.1.2:4001 for 3600 s");
    assert_eq!(asked, [expected("TCP"), expected("UDP")]);
    node.wait("status", SOON, |status| status["reach"] == "public");
    let (verdict, message) = verdict(&home, data);
    println!("doctor: {verdict}: {message}");
    assert_eq!(verdict, "ok");
    for way in ["/ip4/1.2.3.4/tcp/4001", "/ip4/1.2.3.4/udp/4001/quic-v1"] {
        assert!(message.contains(way), "{message}");
    }
    node.signal("TERM");
    node.wait_exit(SOON);
    let mut given_back = [router.says("forgets"), router.says("forgets")];
    given_back.sort();
    assert_eq!(given_back, ["forgets TCP 4001", "forgets UDP 4001"]);
}

#[test]
#[ignore = "some seconds; make nat-matrix"]
fn a_router_behind_another_router_is_called_what_it_is() {
    let Some(mut internet) = Internet::new() else { return };
    let scratch = Scratch::new("two-routers");
    let data = scratch.file("data");
    let home = internet.home("home", 11, Nat::PortRestricted);
    let router = Router::start(internet.last_router(), "10.0.0.7");
    let data = data.to_str().unwrap();
    let node = home.node(&["run", "--data-dir", data, "--listen", LISTEN]);
    router.says("is asked for its address");
    let mut last = (String::new(), String::new());
    // The answer is on its way to the node: it is there within a look or two.
    for _ in 0..SOON.as_secs() {
        last = verdict(&home, data);
        if last.0 != "ok" {
            break;
        }
        let from = node.mark();
        node.wait_from(from, "status", SOON, |_| true);
    }
    println!("doctor: {}: {}", last.0, last.1);
    assert_eq!(last.0, "warn", "{last:?}");
}

/// The router itself: what its namespace runs.
#[test]
#[ignore = "the other side of the tests above, no test"]
fn answers_as_a_router() {
    let Ok(outside) = std::env::var(OUTSIDE) else { return };
    // It ends with whoever started it.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let pages = TcpListener::bind((INSIDE, 0)).unwrap();
    let port = pages.local_addr().unwrap().port();
    let search = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 1900)).unwrap();
    search.join_multicast_v4(&GROUP, &INSIDE).unwrap();
    std::thread::spawn(move || {
        let mut question = [0; 2_048];
        while let Ok((length, from)) = search.recv_from(&mut question) {
            if question[..length].starts_with(b"M-SEARCH") {
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=60\r\nEXT:\r\n\
                     LOCATION: http://{INSIDE}:{port}/root.xml\r\n\
                     ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
                );
                search.send_to(answer.as_bytes(), from).unwrap();
            }
        }
    });
    println!("\nlistens");
    for stream in pages.incoming().map_while(Result::ok) {
        // Who asks may break off.
        let _ = serve(stream, &outside);
    }
}

/// One request of HTTP, one answer.
fn serve(mut stream: TcpStream, outside: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line)? > 2 {
        head.push_str(&std::mem::take(&mut line));
    }
    let lower = head.to_lowercase();
    let length = lower.split("content-length:").nth(1).and_then(|rest| rest.lines().next());
    let mut body = vec![0; length.map_or(0, |text| text.trim().parse().unwrap())];
    reader.read_exact(&mut body)?;
    let answer = answer(&head, &String::from_utf8_lossy(&body), outside);
    let (status, text) = match answer {
        Some(text) => ("200 OK", text),
        None => ("404 Not Found", String::new()),
    };
    let length = text.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{text}"
    )
}

fn answer(head: &str, body: &str, outside: &str) -> Option<String> {
    if head.starts_with("GET /root.xml") {
        return Some(format!(
            "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\"><device>\
             <serviceList><service><serviceType>{SERVICE}</serviceType>\
             <SCPDURL>/actions.xml</SCPDURL><controlURL>/control</controlURL></service>\
             </serviceList></device></root>"
        ));
    }
    if head.starts_with("GET /actions.xml") {
        let add = "NewRemoteHost NewExternalPort NewProtocol NewInternalPort NewInternalClient \
                   NewEnabled NewPortMappingDescription NewLeaseDuration";
        let actions = [
            action("AddPortMapping", add),
            action("DeletePortMapping", "NewRemoteHost NewExternalPort NewProtocol"),
        ];
        return Some(format!(
            "<?xml version=\"1.0\"?><scpd xmlns=\"urn:schemas-upnp-org:service-1-0\">\
             <actionList>{}</actionList></scpd>",
            actions.concat()
        ));
    }
    let told = |name: &str| {
        let rest = body.split(&format!("<{name}>")).nth(1)?;
        Some(rest.split('<').next()?.to_owned())
    };
    if body.contains("GetExternalIPAddress") {
        println!("is asked for its address");
        let inside = format!("<NewExternalIPAddress>{outside}</NewExternalIPAddress>");
        return Some(envelope("GetExternalIPAddress", &inside));
    }
    let (kind, port) = (told("NewProtocol")?, told("NewExternalPort")?);
    if body.contains("AddPortMapping") {
        let (to, inner) = (told("NewInternalClient")?, told("NewInternalPort")?);
        println!("forwards {kind} {port} to {to}:{inner} for {} s", told("NewLeaseDuration")?);
        return Some(envelope("AddPortMapping", ""));
    }
    println!("forgets {kind} {port}");
    Some(envelope("DeletePortMapping", ""))
}

fn action(name: &str, arguments: &str) -> String {
    let arguments: String = arguments
        .split_whitespace()
        .map(|name| format!("<argument><name>{name}</name><direction>in</direction></argument>"))
        .collect();
    format!("<action><name>{name}</name><argumentList>{arguments}</argumentList></action>")
}

fn envelope(action: &str, inside: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\">\
         <s:Body><u:{action}Response xmlns:u=\"{SERVICE}\">{inside}</u:{action}Response></s:Body>\
         </s:Envelope>"
    )
}
