"""What can go wrong for a user. Every message says what must hold, what came, and what to do."""


class ThermalSearchError(Exception):
    """The base of every error meant for people: the command line prints it as one sentence."""


class DatasetError(ThermalSearchError):
    """A recording or a prepared dataset is not what it should be."""


class SearchError(ThermalSearchError):
    """A search cannot start or go on: unknown names, impossible budgets, a foreign folder."""


class WeightsUnavailable(ThermalSearchError):
    """The weights of a feature extractor cannot be had on this machine."""


class MetricError(ThermalSearchError):
    """A number cannot be measured, or two of them cannot be compared."""


class ExportMismatch(ThermalSearchError):
    """An exported generator does not paint what the trained one paints."""


class TrialDiverged(Exception):
    """A loss or a gradient stopped being finite. This is a result of a search, not an accident."""
