"""How properties are tried, everywhere."""

from hypothesis import HealthCheck, settings

# A slow machine is no fault of the code: no test here may depend on how long something takes.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("patient", PATIENT)
settings.register_profile("thorough", PATIENT, max_examples=5000)
settings.load_profile("patient")
