//! Which hosts an address of record may have: the domains, the address that is heard on and the one that is advertised.

use e2e::sipp::{Plan, Sipp};
use e2e::{Pbx, free_port};
use std::time::Duration;

const DOMAINS: &str =
    "apiVersion: kubepbx.io/v1alpha1\nkind: Pbx\nmetadata: {name: main}\nspec: {domains: [pbx.example]}\n";

/// How SIPp fared that registered 8005 at this host.
fn register(pbx: &Pbx, host: Option<&'static str>) -> Result<(), String> {
    let plan = Plan { host, port: free_port(), ..Plan::default() };
    let sipp = Sipp::start("register", pbx.sip, "8005", plan).unwrap();
    sipp.success(Duration::from_secs(20)).map_err(|error| error.to_string())
}

#[test]
fn with_domains_a_phone_registers_at_them_and_at_own_addresses_and_nowhere_else() {
    // A PBX for each: an endpoint of the example has one contact at a time.
    for host in [Some("pbx.example"), Some("PBX.Example"), Some("edge.example"), None] {
        let pbx = Pbx::first_call_and(DOMAINS, &["--advertise", "edge.example"]).unwrap();
        register(&pbx, host).unwrap();
        pbx.registered(1).unwrap();
        let refused = register(&pbx, Some("other.example")).unwrap_err();
        assert!(refused.contains("SIP/2.0 404"), "{refused}");
        pbx.registered(1).unwrap();
    }
}

#[test]
fn without_domains_any_host_will_do() {
    let pbx = Pbx::first_call(&[]).unwrap();
    register(&pbx, Some("other.example")).unwrap();
    pbx.registered(1).unwrap();
}
