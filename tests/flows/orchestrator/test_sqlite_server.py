"""A server on SQLite whose records many write at once."""

from concurrent.futures import ThreadPoolExecutor

from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.orchestrator.crashes import AGAIN, TAG, register
from tests.orchestration.site import Site, until

_RUNS = 12


def test_runs_that_crash_at_once_are_all_run_again(tmp_path):
    site = Site(tmp_path, {"PREFECT_HOME": str(tmp_path / "prefect")})
    try:
        site.start_server()
        with temporary_settings({PREFECT_API_URL: f"{site.url}/api"}):
            register()

        def crashed(_: int) -> str:
            return site.run_of_nobody([TAG, AGAIN], "RUNNING", "CRASHED")

        with ThreadPoolExecutor(_RUNS) as pool:
            runs = list(pool.map(crashed, range(_RUNS)))

        def again():
            return all(site.state(run)["name"] == "AwaitingRetry" for run in runs)

        until(20, "all are run again", again)
        for run in runs:
            states = site.ask("GET", f"flow_run_states/?flow_run_id={run}")
            names = [state["name"] for state in states]
            assert names == ["Pending", "Running", "Crashed", "AwaitingRetry"], "and each once"
    finally:
        site.close()
