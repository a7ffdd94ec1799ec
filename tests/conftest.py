"""What holds for every test: nothing is judged by its speed, and waiting threads sleep."""

from hypothesis import HealthCheck, settings

from proxies.runtime import wait_asleep

# A busy machine slows tests only in proportion.
wait_asleep()

# Speed is measured in benchmarks: a slow example is no failure.
settings.register_profile("ttca", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ttca")
