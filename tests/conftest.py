"""What holds for every test: waiting threads sleep, so that a busy machine slows tests only in proportion."""

from proxies.runtime import wait_asleep

wait_asleep()
