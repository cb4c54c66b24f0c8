from ._measurer import OnnxRuntimeMeasurer, OnnxRuntimeSettings, OpenVinoMeasurer

__all__ = ["OnnxRuntimeMeasurer", "OnnxRuntimeSettings", "OpenVinoMeasurer"]
