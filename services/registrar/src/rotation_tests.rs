//! Keys of the installation that are rotated under a registrar.

use super::*;

#[test]
fn nonces_follow_keys_that_are_rotated() {
    let of = |world: &mut World, ring: &Arc<KeyRing>| {
        world.core = Core::new(ME, Settings::default(), ring.clone());
        world.input(Input::Configured(Arc::new(Directory::new(&snapshot(&[])))));
    };
    let (old, new) = (|| InstallationKey::new(1, [7; 32]), || InstallationKey::new(2, [8; 32]));
    let ring = keys();
    let mut world = World::new(&[]);
    of(&mut world, &ring);
    let challenged = |world: &mut World| {
        let mut phone = Phone::new("8005", "secret5");
        let first = world.ask(&mut phone, CONTACT);
        phone.challenged(&first.message());
        phone
    };
    let mut phone = challenged(&mut world);
    // Another process has the second step already: what it signed is good here after the first.
    let mut ahead = World::new(&[]);
    of(&mut ahead, &Arc::new(KeyRing::new(new()).accepting(old())));
    let mut other = challenged(&mut ahead);
    ring.replace(&KeyRing::new(old()).accepting(new()));
    assert_eq!(world.ask(&mut phone, CONTACT).status(), 200);
    other.call_id = "other".into();
    assert_eq!(world.ask(&mut other, CONTACT).status(), 200);
}
