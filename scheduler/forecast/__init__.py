"""Predicts how long a build takes, before it runs or from where it stands."""

from scheduler.forecast.simulation import NEVER, Forecast, Standing, Step, forecast

__all__ = ["NEVER", "Forecast", "Standing", "Step", "forecast"]
