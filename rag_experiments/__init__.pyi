# What `import rag_experiments as rag` offers, for type checkers: `__init__.py` imports it when it is asked for.
from rag_experiments.api.launch import RunFailed as RunFailed
from rag_experiments.api.launch import check_data as check_data
from rag_experiments.api.launch import compare as compare
from rag_experiments.api.launch import plan as plan
from rag_experiments.api.launch import train as train
from rag_experiments.api.opened_run import Run as Run
from rag_experiments.api.opened_run import open_run as open_run
from rag_experiments.ask import Reply as Reply
from rag_experiments.core.errors import RequestError as RequestError
from rag_experiments.data.records import Turn as Turn

__version__: str
