"""Of two control processes one leads; the other takes over when that one stops or dies."""

from bench import Bench, until


def test_control_stops_at_once_and_another_takes_over(service: Bench):
    first = service.control()
    service.worker()
    until(service.state(service.submit("succeed"), "succeeded"), 40)
    second = service.control()
    first.terminate()
    assert first.wait(5) == 0
    until(service.state(service.submit("succeed"), "succeeded"), 20)
    second.kill()
    second.wait()
    service.control()  # waits until the dead one's lead has run out
    until(service.state(service.submit("succeed"), "succeeded"), 20)
