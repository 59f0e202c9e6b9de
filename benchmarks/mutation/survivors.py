"""Mutants that no test can or need notice, each with the reason."""

from __future__ import annotations

_LIMIT = "_governor.concurrency.xǁConcurrencyLimitǁ"
_PDF = "_files.pdf.x"
_NAMES = "_files.names.x_"
_ESTIMATE = "_values.adaptive_polling.xǁ_Estimateǁ"
_SCHEDULE = "_values.adaptive_polling.xǁAdaptiveScheduleǁ"
_DECODE = "_einvoices.decode.x_"

_SAME = "the two sides agree where they meet: the result is the same"
_EDGE = "only a value that hits the bound exactly could tell, and either answer is right there"

_BY_REASON: dict[str, tuple[str, ...]] = {
    _SAME: (
        f"{_LIMIT}_improve__mutmut_14",
        f"{_LIMIT}succeed__mutmut_9",
        "_governor.lane.xǁLaneǁend__mutmut_9",
        "_governor.budget.xǁRetryBudgetǁ_fill__mutmut_3",
        "_governor.budget.xǁRetryBudgetǁwait__mutmut_1",
        f"{_PDF}ǁPdfValidatorǁfeed__mutmut_1",
        f"{_PDF}ǁPdfValidatorǁfeed__mutmut_15",
    ),
    _EDGE: (
        f"{_LIMIT}_choose__mutmut_9",
        f"{_LIMIT}_choose__mutmut_12",
        f"{_LIMIT}_choose__mutmut_14",
        f"{_LIMIT}_choose__mutmut_34",
        f"{_LIMIT}_improve__mutmut_5",
        f"{_LIMIT}_judge__mutmut_38",
        f"{_LIMIT}_judge_cut__mutmut_2",
        f"{_LIMIT}_judge_cut__mutmut_14",
        f"{_LIMIT}_judge_cut__mutmut_36",
        f"{_LIMIT}_judge_down__mutmut_6",
        f"{_LIMIT}_judge_down__mutmut_10",
        f"{_LIMIT}refuse__mutmut_9",
        f"{_LIMIT}refuse__mutmut_23",
        f"{_LIMIT}_choose__mutmut_18",
        f"{_ESTIMATE}_take__mutmut_18",
        f"{_SCHEDULE}_index__mutmut_2",
        f"{_SCHEDULE}_replan__mutmut_21",
        f"{_SCHEDULE}_replan__mutmut_34",
        "_values.adaptive_polling.xǁ_Envelopeǁadd__mutmut_10",
        "_values.adaptive_polling.xǁ_Envelopeǁleast__mutmut_18",
        "_values.adaptive_polling.x__plan__mutmut_19",
        f"{_PDF}__tail_fault__mutmut_36",
        "_core.clock_offset.xǁClockOffsetǁannounce__mutmut_8",
        "_governor.outage.xǁOutageǁfail__mutmut_10",
        "_governor.outage.xǁOutageǁwait__mutmut_4",
        "_governor.outage.xǁOutageǁwait__mutmut_18",
    ),
    "nothing reads the latency of a cut": (
        f"{_LIMIT}refuse__mutmut_44",
        f"{_LIMIT}refuse__mutmut_48",
        f"{_LIMIT}_judge_cut__mutmut_19",
        f"{_LIMIT}_judge_cut__mutmut_25",
    ),
    "after two cuts nothing asks how many there were": (f"{_LIMIT}_judge_cut__mutmut_27",),
    "None and False are alike to all who read it": (f"{_LIMIT}refuse__mutmut_28",),
    "so many refusals never lead to where the time is asked for": (f"{_LIMIT}refuse__mutmut_25",),
    "whatever a cut is judged to be, the trial is set anew": (f"{_LIMIT}_judge__mutmut_10",),
    "the simulations of `governor/test_lane_figures.py` notice it, which are too slow to be tried with each": (
        f"{_LIMIT}_judge__mutmut_16",
        f"{_LIMIT}_judge__mutmut_18",
        "_governor.lane.xǁLaneǁ_failed__mutmut_22",
    ),
    "how fast it is forgotten is a choice: a seventeenth is as good as a sixteenth": (f"{_LIMIT}_judge__mutmut_19",),
    "without a trial nothing asks what followed": (f"{_LIMIT}_judge__mutmut_23",),
    "a best latency that is not raised leads to a check downwards, which raises it": (f"{_LIMIT}_judge__mutmut_81",),
    "the last step on the way down sets it": (f"{_LIMIT}_judge_down__mutmut_14",),
    "the two differ by less than what counts as nothing": (f"{_LIMIT}_judge_down__mutmut_33",),
    "no fault, but another check of the same limit, a trial more; no test counts them": (
        f"{_LIMIT}_judge_down__mutmut_30",
        f"{_LIMIT}_judge_down__mutmut_31",
        f"{_LIMIT}_choose__mutmut_21",
    ),
    "of two places, all that a check downwards could find is that one is enough": (f"{_LIMIT}_choose__mutmut_19",),
    "a best latency is always known by then": (
        f"{_LIMIT}_judge__mutmut_42",
        f"{_LIMIT}_choose__mutmut_3",
        f"{_LIMIT}_choose__mutmut_5",
    ),
    "a token a second: to divide and to multiply by one is the same": (
        "_governor.budget.xǁRetryBudgetǁ_fill__mutmut_10",
        "_governor.budget.xǁRetryBudgetǁwait__mutmut_10",
    ),
    "with more than one token the sum is negative, and 0 is returned too": (
        "_governor.budget.xǁRetryBudgetǁwait__mutmut_2",
    ),
    "there is one probe at a time": ("_governor.outage.xǁOutageǁprobe__mutmut_1",),
    "a calm lane has no slow start, so that what ended is not asked": ("_governor.lane.xǁLaneǁ_answered__mutmut_2",),
    "what was begun since the last pause and is no probe cannot end one": (
        "_governor.lane.xǁLaneǁ_answered__mutmut_23",
    ),
    "the next place is asked for later, and is never due before it is asked for": (
        "_core.rate_limiter.xǁRateLimiterǁtake__mutmut_11",
    ),
    "filler stands before the document's own bytes, where nothing is looked for": (
        f"{_PDF}ǁPdfValidatorǁ__init____mutmut_4",
        f"{_PDF}ǁPdfValidatorǁ__init____mutmut_6",
    ),
    "no pattern looks at a second byte of the filler": (
        f"{_PDF}ǁPdfValidatorǁfault__mutmut_4",
        f"{_PDF}_fault_of__mutmut_17",
    ),
    "the first byte is the head's, and no `startxref` begins there": (f"{_PDF}_fault_of__mutmut_14",),
    "None and 0 are the same beginning": (f"{_PDF}__tail_fault__mutmut_5",),
    "one place more than the grid has, which nothing reads": (
        f"{_ESTIMATE}_expect__mutmut_7",
        f"{_ESTIMATE}_expect__mutmut_11",
    ),
    "a codec's name in capitals is the same codec": (
        "_core.signing.x_verify__mutmut_31",
        "_files.disposition.x_content_disposition__mutmut_19",
        f"{_NAMES}digest_of__mutmut_7",
        f"{_NAMES}_cut__mutmut_12",
        f"{_NAMES}_cut__mutmut_16",
    ),
    "read by Python 3.12 or later alone; the figures are of 3.11, and the tests of it run in each": (
        *(f"{_NAMES}child__mutmut_{number}" for number in (1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)),
    ),
    "the same path, made slower; what it leaves behind is memory in Python 3.12 alone": (f"{_NAMES}parsed__mutmut_4",),
    "of white space only spaces are left there": (f"{_NAMES}cleaned__mutmut_36",),
    "whoever signs the full path says what stands before it": ("_core.signing.x_signed_path__mutmut_2",),
    "the digest of no bytes is that constant": ("_core.signing.x_sign__mutmut_3",),
    "neither is what is looked for": (
        "_core.signing.x_verify__mutmut_21",
        "_files.disposition.x_from_content_disposition__mutmut_25",
    ),
    "None and an empty text are alike to what follows": ("_files.disposition.x_from_content_disposition__mutmut_15",),
    "the letter X is never encoded": ("_files.disposition.x_content_disposition__mutmut_33",),
    "a piece without an equals sign names nothing": ("_files.disposition.x_from_content_disposition__mutmut_4",),
    "a short cut: the function below says the same of it": (
        f"{_DECODE}_request__mutmut_55",
        f"{_DECODE}_request__mutmut_56",
        f"{_DECODE}_request__mutmut_58",
        "_einvoices.rules.x_canonical_key__mutmut_1",
    ),
    "what is no text becomes an empty key": ("_einvoices.rules.x_check__mutmut_11",),
    "what is paired is as long by construction: `strict` only guards against a mistake in the module": (
        *(f"{_ESTIMATE}_take__mutmut_{number}" for number in (10, 13, 14)),
        *(
            f"{_ESTIMATE}learn__mutmut_{number}"
            for number in (17, 20, 21, 44, 47, 48, 65, 69, 70, 80, 83, 84, 93, 96, 105)
        ),
        *(f"{_ESTIMATE}_expect__mutmut_{number}" for number in (39, 43, 58, 64)),
        *(f"{_SCHEDULE}_replan__mutmut_{number}" for number in (9, 12, 13, 29, 31, 32)),
    ),
    "twice every chance: what is made of them are ratios, and the plan that costs least": (
        "_values.adaptive_polling.x__survival__mutmut_10",
    ),
    "one second is nothing, and neither is 0: no correction follows from either": (
        "_core.clock_offset.xǁClockOffsetǁ_needed__mutmut_3",
    ),
}

EQUIVALENT = {f"invoicing_async.{name}": reason for reason, names in _BY_REASON.items() for name in names}
