//! Servers that die, come back, are not there, or speak another version.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::remote::{ConnectError, RemoteHost};
use burn::store::ModuleRecord;
use burn::tensor::{Device, Tensor};
use burn_sam::SamConfig;
use burn_sam_tests::{Mlp, Points, values};
use digits::model::{ConvNet, Mlp as Perceptron, Network};

use crate::relay::Relay;
use crate::server::Server;
use crate::training::{LR, sgd};

/// How long an error may take to be told.
const SECONDS: u64 = 10;

/// The example's program trains for four epochs.
fn training<'a>(urls: impl IntoIterator<Item = &'a String>, folder: &Path, more: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_remote"));
    command.args(["train", "--epochs", "4"]).args(more);
    command.arg("--folder").arg(folder);
    for url in urls {
        command.args(["--server", url]);
    }
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits for a program, and returns what it says of an error, or nothing if there is none.
fn error_of(mut program: Child, seconds: u64) -> Option<String> {
    let end = Instant::now() + Duration::from_secs(seconds);
    while program.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            program.kill().unwrap();
            panic!("it still runs after {seconds} s");
        }
        sleep(Duration::from_millis(20));
    }
    let Output { status, stderr, .. } = program.wait_with_output().unwrap();
    let words = String::from_utf8(stderr).unwrap();
    (!status.success()).then_some(words)
}

fn finishes(program: Child) {
    assert_eq!(error_of(program, 100), None);
}

/// Values by their paths, as bits: what is not known yet is NaN, and equal to itself.
type Values = Vec<(String, Vec<u64>)>;

fn bits(values: Vec<(String, Vec<f64>)>) -> Values {
    let bits = |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect();
    values
        .into_iter()
        .map(|(path, values)| (path, bits(values)))
        .collect()
}

/// The weights and what SAM keeps, of the checkpoint after the last epoch.
fn checkpoint<M: Network>(folder: &Path, new: fn(&Device) -> M) -> Values {
    let record = ModuleRecord::load(folder.join("checkpoint/model-4.bpk")).unwrap();
    let model = SamConfig::auto().init(new(&Device::flex().autodiff()));
    bits(values(&model.load_record(record)))
}

fn urls(servers: &[Server]) -> impl Iterator<Item = &String> {
    servers.iter().map(|server| &server.url)
}

/// The weights of a training without interruption, and what SAM keeps.
fn uninterrupted(servers: &[Server]) -> Values {
    let folder = tempfile::tempdir().unwrap();
    finishes(training(urls(servers), folder.path(), &[]));
    weights(folder.path(), servers.len())
}

fn weights(folder: &Path, servers: usize) -> Values {
    match servers {
        1 => checkpoint(folder, ConvNet::new),
        _ => checkpoint(folder, Perceptron::new),
    }
}

/// Goes on after an epoch, and not from the start.
fn resumed(servers: &[Server], folder: &Path, epoch: usize, more: &[&str]) -> Values {
    std::fs::remove_dir_all(folder.join("train")).unwrap();
    finishes(training(
        urls(servers),
        folder,
        &[more, &["--resume"]].concat(),
    ));
    let epochs = (1..=4).filter(|epoch| folder.join(format!("train/epoch-{epoch}")).exists());
    assert!(epochs.eq(epoch + 1..=4), "after {epoch}");
    weights(folder, servers.len())
}

/// The epoch that an error says to go on after.
fn epoch_of(error: &str) -> usize {
    let epoch = error.split("--resume goes on after epoch ").nth(1);
    let epoch = epoch.and_then(|rest| rest.lines().next()?.parse().ok());
    epoch.unwrap_or_else(|| panic!("no epoch in: {error}"))
}

/// Kills one of so many servers in the third epoch, starts all of them again, and goes on.
fn killed_in_an_epoch(count: usize, killed: usize) {
    let mut servers: Vec<Server> = (0..count).map(|_| Server::start()).collect();
    let whole = uninterrupted(&servers);

    let folder = tempfile::tempdir().unwrap();
    let mut program = training(urls(&servers), folder.path(), &[]);
    while !folder.path().join("checkpoint/scheduler-2.bpk").exists() {
        assert!(
            program.try_wait().unwrap().is_none(),
            "before its second epoch"
        );
        sleep(Duration::from_millis(1));
    }
    servers[killed].kill();
    let error = error_of(program, SECONDS).expect("an error");
    assert!(error.contains("the training stopped: "), "{error}");
    let epoch = epoch_of(&error);
    assert!([2, 3].contains(&epoch), "{error}");

    // The others too: a server of Burn's does not connect again to one that it has lost.
    for server in &mut servers {
        server.kill();
        *server = Server::start_at(server.address());
    }
    assert_eq!(resumed(&servers, folder.path(), epoch, &[]), whole);
}

#[test]
fn a_server_killed_in_an_epoch_costs_that_epoch() {
    killed_in_an_epoch(1, 0);
}

#[test]
fn so_does_one_of_two() {
    for killed in [0, 1] {
        killed_in_an_epoch(2, killed);
    }
}

/// A shortcoming of Burn 0.22.1, and why all servers have to be started again: see docs/remote.md.
#[test]
fn a_server_does_not_connect_again_to_one_that_it_has_lost() {
    let [first, mut second] = [Server::start(), Server::start()];
    let transfer = |servers: [&Server; 2], client: &str| {
        // By its credential, Burn takes it for another client, as it would another process.
        let [first, second] = servers.map(|server| {
            let host = RemoteHost::websocket(&server.url).with_credential(client);
            Device::remote_options(&host).init().unwrap()
        });
        let there = Tensor::<1>::ones([1], &second).to_device(&first);
        there.try_into_scalar::<f32>()
    };
    assert_eq!(transfer([&first, &second], "before").unwrap(), 1.0);
    second.kill();
    second = Server::start_at(second.address());
    assert!(transfer([&first, &second], "after").is_err());
}

/// With four steps an epoch, most of what a server sends is the weights and Adam's averages, for the checkpoints.
#[test]
fn a_server_lost_while_a_checkpoint_is_read_costs_that_epoch() {
    let few = ["--batch-size", "250"];
    let servers = [Server::start()];
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::new(&servers[0]);
    finishes(training([&relay.url], folder.path(), &few));
    let [_, all] = relay.down.get();
    let whole = weights(folder.path(), 1);

    let mut in_a_checkpoint = 0;
    for part in [0.40, 0.45, 0.65, 0.70] {
        let folder = tempfile::tempdir().unwrap();
        let relay = Relay::until(&servers[0], (part * all as f64) as usize);
        let program = training([&relay.url], folder.path(), &few);
        let error = error_of(program, SECONDS).expect("an error");
        // Burn's Learner has no word for it.
        in_a_checkpoint += usize::from(!error.contains("the training stopped: "));
        let epoch = epoch_of(&error);
        let resumed = resumed(&servers, folder.path(), epoch, &few);
        assert_eq!(resumed, whole, "cut after {part}");
    }
    assert!(in_a_checkpoint > 0);
}

#[test]
fn a_folder_has_one_training() {
    let servers = [Server::start()];
    let folder = tempfile::tempdir().unwrap();
    let error = |more: &[&str]| {
        let program = training(urls(&servers), folder.path(), more);
        error_of(program, 100).expect("an error")
    };
    assert!(error(&["--resume"]).contains("no checkpoint"));
    finishes(training(urls(&servers), folder.path(), &[]));
    assert!(error(&[]).contains("came to epoch 4"));
    assert!(error(&["--resume"]).contains("all of its 4 epochs"));
    assert!(error(&["--resume", "--method", "sgd"]).contains("method Auto"));
}

#[test]
fn a_server_killed_between_two_passes_is_told() {
    let mut server = Server::start();
    let device = server.device();
    let points = Points::new(0, &device);
    let mut model = Mlp::new(1, &device);
    let mut steps = SamConfig::new().steps(&model);
    let mut optim = sgd();
    let start = Instant::now();
    for step in 0..4 {
        let mut passes = 0;
        let (updated, losses) = steps.minimize(&mut optim, LR, model, |model: &Mlp| {
            passes += 1;
            if [step, passes] == [1, 2] {
                server.kill();
            }
            model.loss(&points)
        });
        model = updated;
        let loss = losses.climbed.unwrap().try_into_scalar::<f32>();
        assert_eq!(loss.is_ok(), step == 0, "step {step}: {loss:?}");
        if step == 2 {
            // It comes back, and knows nothing of what was.
            server = Server::start_at(server.address());
        }
    }
    assert!(start.elapsed() < Duration::from_secs(SECONDS));
}

#[test]
fn no_server_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut gone = [Server::start()];
    gone[0].kill();
    // Burn tries for 16 seconds.
    let error =
        error_of(training(urls(&gone), folder.path(), &[]), 16 + SECONDS).expect("an error");
    assert!(error.contains(&gone[0].url), "{error}");
    assert!(error.contains("is the server running?"), "{error}");
}

#[test]
fn a_server_of_another_version_is_an_error() {
    let server = Server::start();
    // The answer to a handshake: `Init`, and an array that begins with the version.
    let relay = Relay::rewriting(&server, |message| {
        let init = message.windows(4).position(|bytes| bytes == b"Init");
        if let Some(init) = init {
            message[init + 5] += 1;
        }
    });
    let options = Device::remote_options(&RemoteHost::websocket(&relay.url));
    match options.init() {
        Err(ConnectError::IncompatibleProtocol {
            client_version,
            server_version,
        }) => assert_eq!(server_version, client_version + 1),
        other => panic!("{other:?}"),
    }
}
