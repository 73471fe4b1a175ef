//! How a set picks (Kamailio's algorithms under their names).
//!
//! Weight and hash depend on the Call-ID alone, so a retransmission that comes through another replica is sent to the
//! same destination. Taking turns cannot promise that: each replica has turns of its own.

use super::set::Target;
use contract::ProcessId;
use contract::config::Algorithm;
use contract::rendezvous;

/// Picks among `live`; `turn` counts the picks of this set. `None` when there is none.
pub fn pick<'t>(algorithm: Algorithm, live: &[&'t Target], call_id: &str, turn: &mut u64) -> Option<&'t Target> {
    let hashed = |weight: &dyn Fn(&Target) -> f64| {
        let members = live.iter().map(|t| (ProcessId(t.id), weight(t)));
        let chosen = rendezvous::choose(call_id.as_bytes(), members)?;
        live.iter().find(|t| t.id == chosen.0).copied()
    };
    match algorithm {
        // With no weight left at all those that remain are as good as one another.
        Algorithm::Weight => hashed(&|t| f64::from(t.weight)).or_else(|| hashed(&|_| 1.0)),
        Algorithm::HashCallId => hashed(&|_| 1.0),
        Algorithm::RoundRobin => {
            let at = usize::try_from(*turn % live.len().max(1) as u64).unwrap_or_default();
            *turn = turn.wrapping_add(1);
            live.get(at).copied()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(weights: &[u32]) -> Vec<Target> {
        let make = |(n, w): (usize, &u32)| Target::new(&format!("sip:127.0.0.1:{}", 6000 + n), *w).unwrap();
        weights.iter().enumerate().map(make).collect()
    }

    fn tally(algorithm: Algorithm, weights: &[u32], calls: usize) -> Vec<usize> {
        let all = targets(weights);
        let live: Vec<&Target> = all.iter().collect();
        let (mut turn, mut had) = (0, vec![0; weights.len()]);
        for call in 0..calls {
            let picked = pick(algorithm, &live, &format!("call-{call}"), &mut turn).unwrap();
            had[all.iter().position(|t| t == picked).unwrap()] += 1;
        }
        had
    }

    #[test]
    fn weights_shares_and_turns() {
        let weighted = tally(Algorithm::Weight, &[50, 25, 25, 0], 4000);
        assert!((1880..2120).contains(&weighted[0]) && (880..1120).contains(&weighted[1]), "{weighted:?}");
        assert_eq!(weighted[3], 0);
        let hashed = tally(Algorithm::HashCallId, &[90, 1], 4000);
        assert!((1880..2120).contains(&hashed[0]), "{hashed:?}");
        assert_eq!(tally(Algorithm::RoundRobin, &[1, 9, 0], 9), [3, 3, 3]);
        let idle = tally(Algorithm::Weight, &[0, 0], 4000);
        assert!((1880..2120).contains(&idle[0]), "{idle:?}");
        assert_eq!(pick(Algorithm::RoundRobin, &[], "c", &mut 0), None);
    }

    #[test]
    fn a_call_stays_where_it_is_while_its_destination_lives() {
        let all = targets(&[1, 2, 3]);
        for call in 0..200 {
            let id = format!("c{call}");
            let first = pick(Algorithm::Weight, &all.iter().collect::<Vec<_>>(), &id, &mut 0).unwrap();
            for lost in all.iter().filter(|t| *t != first) {
                let live: Vec<_> = all.iter().filter(|t| *t != lost).collect();
                assert_eq!(pick(Algorithm::Weight, &live, &id, &mut 7), Some(first));
            }
        }
    }
}
