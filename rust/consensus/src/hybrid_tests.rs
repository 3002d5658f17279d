use super::*;
use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;

const DAY: i64 = 86_400_000_000;
const START: u64 = 1_700_000_000_000_000;

thread_local! {
    static TRUE: Cell<u64> = const { Cell::new(0) };
    static STEP: Cell<i64> = const { Cell::new(0) };
}

fn fake() -> Source {
    Source { wall: || START.saturating_add(TRUE.get()).saturating_add_signed(STEP.get()), since_boot: || 5_000_000 + TRUE.get() }
}

fn pass(micros: u64) {
    TRUE.set(TRUE.get() + micros);
}

struct Path_(PathBuf);

impl Path_ {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("creto-clock-{name}-{}", std::process::id())))
    }
}

impl Drop for Path_ {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn threads_are_never_given_the_same_word_and_each_sees_time_grow() {
    let path = Path_::new("threads");
    let clock = Arc::new(HybridLogicalClock::open(&path.0).unwrap());
    let mut all: Vec<u64> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..4)
            .map(|_| {
                let other = HybridLogicalClock::open(&path.0).unwrap();
                scope.spawn(move || {
                    let given: Vec<u64> = (0..20_000).map(|_| other.now().word()).collect();
                    assert!(given.is_sorted_by(|a, b| a < b));
                    given
                })
            })
            .collect();
        handles.into_iter().flat_map(|h| h.join().unwrap()).collect()
    });
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(clock.now().word() > *all.last().unwrap());
}

#[test]
fn a_step_back_of_a_day_is_an_alarm_and_time_goes_on_at_half_pace_until_the_wall_catches_up() {
    let path = Path_::new("back");
    let clock = HybridLogicalClock::with_source(&path.0, fake(), 7).unwrap();
    let before = clock.now();
    STEP.set(-DAY);
    let after = clock.now();
    assert!(after > before);
    assert_eq!(clock.jumps().count, 1);
    assert_eq!(clock.jumps().last_micros, -DAY);
    for _ in 0..10 {
        pass(1_000_000);
        clock.now();
    }
    let gone = clock.now().micros() - after.micros();
    assert!((4_900_000..=5_100_000).contains(&gone), "{gone} us of 10 s");
    assert_eq!(clock.jumps().count, 1);
    pass(2 * DAY as u64);
    assert_eq!(clock.now().micros(), (fake().wall)());
    assert_eq!(clock.ahead(), Duration::ZERO);
}

#[test]
fn a_step_forward_of_a_day_is_an_alarm_and_an_idle_day_is_not() {
    let path = Path_::new("forward");
    let clock = HybridLogicalClock::with_source(&path.0, fake(), 7).unwrap();
    pass(DAY as u64);
    clock.now();
    assert_eq!(clock.jumps().count, 0);
    STEP.set(DAY);
    clock.now();
    assert_eq!(clock.jumps(), Jumps { count: 1, last_micros: DAY, refused: 0 });
}

#[test]
fn after_a_power_loss_time_starts_behind_nothing_that_was_given() {
    let path = Path_::new("power");
    let clock = HybridLogicalClock::with_source(&path.0, fake(), 7).unwrap();
    let lost_from = std::fs::read(&path.0).unwrap();
    // As far as time can go before the next sync; the page on disk is still the one of the opening.
    pass(AHEAD / 2 - 1);
    let given = clock.now();
    drop(clock);
    std::fs::write(&path.0, lost_from).unwrap();
    TRUE.set(0);
    let clock = HybridLogicalClock::with_source(&path.0, fake(), 8).unwrap();
    assert!(clock.now() > given);
}

#[test]
fn the_bound_on_disk_is_always_ahead_of_what_was_given() {
    let path = Path_::new("bound");
    let clock = HybridLogicalClock::with_source(&path.0, fake(), 7).unwrap();
    for step in 0..200 {
        pass(step * 40_000);
        let given = clock.now().word();
        let shared = clock.page.words();
        assert!(given <= shared.synced.load(Ordering::Acquire));
        assert!(shared.synced.load(Ordering::Acquire) <= shared.mark.load(Ordering::Acquire));
    }
}

#[test]
fn a_word_from_elsewhere_is_taken_over_unless_it_is_more_than_a_minute_ahead() {
    let path = Path_::new("observe");
    let clock = HybridLogicalClock::with_source(&path.0, fake(), 7).unwrap();
    let near = Timestamp::from_micros(START + 30_000_000);
    clock.observe(near).unwrap();
    assert!(clock.now() > near);
    let far = Timestamp::from_micros(START + 3_600_000_000);
    let refused = clock.observe(far).unwrap_err();
    assert_eq!(refused.to_string(), "the timestamp is 3570.0 s ahead of this machine's clock; at most 60 s are taken over");
    assert!(clock.now() < far);
    assert_eq!(clock.jumps().refused, 1);
}

#[test]
fn a_file_that_is_no_clock_is_refused() {
    let path = Path_::new("foreign");
    std::fs::write(&path.0, [b'x'; 8192]).unwrap();
    assert_eq!(HybridLogicalClock::open(&path.0).unwrap_err().to_string(), "the file is not a clock of this version");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Causality over random message graphs between machines whose wall clocks are wrong by up to 30 s and are stepped as they go.
    #[test]
    fn cause_is_always_before_effect(events in proptest::collection::vec((0_usize..3, 0_usize..4, -25_000_000_i64..25_000_000, 0_u64..2_000_000), 1..120)) {
        TRUE.set(0);
        STEP.set(0);
        let paths: Vec<Path_> = (0..3).map(|i| Path_::new(&format!("cause-{i}"))).collect();
        let clocks: Vec<HybridLogicalClock> = paths.iter().map(|p| HybridLogicalClock::with_source(&p.0, fake(), 7).unwrap()).collect();
        let mut last = [Timestamp::default(); 3];
        for (machine, to, wrong, gone) in events {
            pass(gone);
            STEP.set(wrong);
            let sent = clocks[machine].now();
            proptest::prop_assert!(sent > last[machine]);
            last[machine] = sent;
            if to < 3 {
                clocks[to].observe(sent).unwrap();
                let received = clocks[to].now();
                proptest::prop_assert!(received > sent);
                proptest::prop_assert!(received > last[to] || to == machine);
                last[to] = received;
            }
        }
    }
}
