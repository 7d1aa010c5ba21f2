from translator.audit.api import assert_equivalent as assert_equivalent
from translator.audit.api import audit as audit
from translator.audit.api import transfer as transfer
from translator.errors import CheckpointError as CheckpointError
from translator.errors import InputError as InputError
from translator.errors import InternalError as InternalError
from translator.errors import TranslatorError as TranslatorError
from translator.errors import UnsupportedError as UnsupportedError
from translator.pipeline import convert as convert
from translator.report.summary import summary as summary
from translator.source_writer import write_source as write_source
from translator.verdict import Report as Report
from translator.verdict import Verdict as Verdict

__version__: str
