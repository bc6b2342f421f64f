//! `wrap`: a program of others as the agent, on this terminal, with this directory as its workspace.

use super::run;
use crate::arguments::WrapArguments;
use crate::error::{CliError, Result, exit};
use crate::session::{Session, login};
use crate::terminal::safe;
use crate::{guest_program, model_choice};
use runtime::config;
use runtime::protocol::NewRun;
use std::path::Path;
use types::manifest::{Manifest, Permissions, Preset};

/// `wrap`.
pub(crate) fn wrap(session: &Session, arguments: &WrapArguments) -> Result<u8> {
    let wrapped = prepared(session, arguments).and_then(|new| run::start_guest(session, new));
    // The program's status is passed on; what fails before or beside it is ours.
    wrapped.map_err(|failed| {
        if failed.exit == exit::FAILED { failed.with_exit(exit::SANDBOX_OWN) } else { failed }
    })
}

fn prepared(session: &Session, arguments: &WrapArguments) -> Result<NewRun> {
    let here = std::env::current_dir().map_err(|error| CliError::Io {
        what: "cannot find the current directory".to_owned(),
        reason: error.to_string(),
    })?;
    let here = config::absolute(&here)?;
    let has_manifest = here.join(config::MANIFEST_FILE).exists();
    let (mut manifest, cedar) = if has_manifest {
        let project = config::load(&here, arguments.env.as_deref())?;
        (project.manifest, project.cedar)
    } else {
        (drafting(), None)
    };
    choose_models(&mut manifest, arguments, &here, session)?;
    manifest.agent.command.clone_from(&arguments.command);
    for shown in guest_program::place(&mut manifest, Some(&here), &here) {
        session.terminal.progress(&format!("shows {}", safe(&shown)));
    }
    run::check(&manifest, &here, cedar.as_deref())?;
    Ok(NewRun {
        manifest: Box::new(manifest),
        dir: has_manifest.then(|| here.to_string_lossy().into_owned()),
        workspace: Some(here.to_string_lossy().into_owned()),
        input: String::new(),
        by: login(),
    })
}

/// What holds where there is no manifest.
fn drafting() -> Manifest {
    let mut manifest = model_choice::empty_manifest();
    manifest.agent.name = "guest".to_owned();
    manifest.permissions =
        Some(Permissions { preset: Some(Preset::Draft), ..Permissions::default() });
    manifest
}

/// The models of the manifest, else what is configured or found. A guest may have none: then its
/// calls are refused.
fn choose_models(
    manifest: &mut Manifest,
    arguments: &WrapArguments,
    here: &Path,
    session: &Session,
) -> Result<()> {
    let typed = arguments.model.as_deref();
    if manifest.routes.contains_key(&manifest.agent.model) {
        return match typed {
            Some(typed) => model_choice::override_route(manifest, typed, here),
            None => Ok(()),
        };
    }
    match model_choice::for_task(typed, here, session.home.path()) {
        Ok(models) => models.into_manifest(manifest),
        Err(failed) if typed.is_some() || failed.failure.code != NO_MODEL => return Err(failed),
        Err(_) => session.terminal.progress("no model is configured: calls of models are refused"),
    }
    Ok(())
}

/// Nothing says which model to use.
const NO_MODEL: &str = "BP-CLI-003";
