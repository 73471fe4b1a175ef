//! Calls between pairs of baresip, which judge what `kubepbx phone` shares its code with: that calls are up, can be held,
//! resumed and ended, and are heard.

use crate::space::Space;
use anyhow::{Result, bail, ensure};
use e2e::{Baresip, eventually, spectrum};
use std::fmt::Write;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const CALLER: f64 = 440.0;
const CALLEE: f64 = 880.0;

/// Pairs of phones outside the cluster, each caller at one node and its callee at another.
#[derive(Debug)]
pub struct Oracle {
    pairs: Vec<Pair>,
}

#[derive(Debug)]
struct Pair {
    callee: String,
    phones: [Baresip; 2],
}

impl Oracle {
    /// Registers so many pairs, as endpoints of their own in the context of `examples/first-call`.
    pub fn begin(space: &Space, pairs: usize) -> Result<Self> {
        let names: Vec<[String; 2]> = (0..pairs).map(|n| [format!("80{}", 10 + n), format!("80{}", 50 + n)]).collect();
        let mut yaml = String::from("{apiVersion: v1, kind: Secret, metadata: {name: oracle}, stringData: {");
        names.iter().flatten().try_for_each(|name| write!(yaml, "\"{name}\": \"{name}\", "))?;
        yaml.push_str("}}\n");
        for name in names.iter().flatten() {
            write!(
                yaml,
                "---\n{{apiVersion: kubepbx.io/v1alpha1, kind: PbxEndpoint, metadata: {{name: \"{name}\"}}, spec: {{\
                 context: from-external, codecs: [ulaw], aor: {{maxContacts: 1}}, \
                 auth: {{username: \"{name}\", passwordSecretRef: {{name: oracle, key: \"{name}\"}}}}}}}}\n"
            )?;
        }
        space.apply(&yaml)?;
        for name in names.iter().flatten() {
            space.wait("PbxEndpoint", name, "Ready", SOON)?;
        }
        let local = space.cluster.phones;
        let mut begun = Vec::new();
        for [caller, callee] in names {
            let phones = space.cluster.outside(|| {
                let one = Baresip::at(local, space.server(0), &caller, CALLER, 600)?;
                Ok([one, Baresip::at(local, space.server(1), &callee, CALLEE, 600)?])
            })?;
            begun.push(Pair { callee: format!("sip:{callee}@{}", space.server(0)), phones });
        }
        for phone in begun.iter_mut().flat_map(|pair| &mut pair.phones) {
            phone.registered(SOON)?;
        }
        Ok(Self { pairs: begun })
    }

    /// Every pair begins a call.
    pub fn dial(&mut self) -> Result<()> {
        for Pair { callee, phones: [caller, _] } in &mut self.pairs {
            caller.command("dial", callee)?;
        }
        for phone in self.phones() {
            phone.event("CALL_ESTABLISHED", SOON)?;
        }
        Ok(())
    }

    /// All are up still, and hear each other; one side of each holds and resumes; both get audio again, and the other side
    /// hangs up.
    pub fn judge(&mut self) -> Result<()> {
        self.still_up()?;
        let enough: Vec<_> = self.phones().map(|phone| phone.recorded() + 1.5).collect();
        eventually("a second is recorded at all", SOON, || {
            self.phones().zip(&enough).all(|(phone, enough)| phone.recorded() >= *enough).then_some(())
        })?;
        for Pair { phones: [caller, callee], .. } in &self.pairs {
            for (phone, hz) in [(caller, CALLEE), (callee, CALLER)] {
                let share = spectrum::last_share(&phone.recording()?, hz)?;
                ensure!(share > 0.9, "{hz} Hz has {share} of what was heard last");
            }
        }
        for command in ["hold", "resume"] {
            for (n, pair) in self.pairs.iter_mut().enumerate() {
                pair.phones[n % 2].command(command, "")?;
            }
            // A change of one side is offered to the other, whose answer comes back.
            for (n, pair) in self.pairs.iter_mut().enumerate() {
                for (side, way) in [(1 - n % 2, "offer"), (n % 2, "answer")] {
                    while pair.phones[side].event("CALL_REMOTE_SDP", SOON)?["param"] != way {}
                }
            }
        }
        // What is resumed it no longer records, but counts.
        let before = self.phones().map(Baresip::packets).collect::<Result<Vec<_>>>()?;
        eventually("half a second of packets after the hold", SOON, || {
            let now = self.phones().map(Baresip::packets).collect::<Result<Vec<_>>>().ok()?;
            now.iter().zip(&before).all(|(now, before)| *now >= before + 25).then_some(())
        })?;
        self.still_up()?;
        for (n, pair) in self.pairs.iter_mut().enumerate() {
            pair.phones[1 - n % 2].command("hangup", "")?;
            pair.phones[n % 2].event("CALL_CLOSED", SOON)?;
        }
        // Whoever hung up has heard of that too.
        self.phones().try_for_each(|phone| phone.other_events().map(drop))
    }

    fn still_up(&mut self) -> Result<()> {
        for phone in self.phones() {
            if let Some(ended) = phone.other_events()?.iter().find(|event| event["type"] == "CALL_CLOSED") {
                bail!("a call between two baresips has ended: {ended}");
            }
        }
        Ok(())
    }

    fn phones(&mut self) -> impl Iterator<Item = &mut Baresip> {
        self.pairs.iter_mut().flat_map(|pair| &mut pair.phones)
    }
}
