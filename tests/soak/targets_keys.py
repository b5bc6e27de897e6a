"""The verifications of the threshold key service."""

from tests.soak.target import Target

CLIENT, THRESHOLD = "quotary/client/", "quotary/threshold/"

KEY_SERVICE = {
    "threshold": Target(
        {
            f"{THRESHOLD}ceremony.py": (
                "check_deal",
                "check_deals",
                "outcome",
                "_deals",
                "_require_seen",
                "_require_enough",
                "_fits",
            ),
            f"{THRESHOLD}group.py": (),
            f"{THRESHOLD}messages.py": (),
            f"{THRESHOLD}oprf.py": ("parse", "hash_to_group", "random_scalar", "evaluate", "verify"),
            f"{THRESHOLD}ristretto.py": ("check_scalar", "check_element", "_call"),
            f"{THRESHOLD}sharing.py": ("check_share", "verify_knowledge"),
        },
        ("tests/threshold",),
    ),
    "key release": Target(
        {
            "private/kms/releases.py": (
                "take",
                "show",
                "release",
                "_require_held",
                "_judge",
                "_count",
                "_one_time_key",
            ),
            f"{CLIENT}key_question.py": ("check_input", "read", "parse"),
            f"{CLIENT}notices.py": (),
        },
        (
            "tests/private/test_kms_answers.py",
            "tests/private/test_kms.py",
            "tests/private/test_kms_ledger.py",
        ),
    ),
    "key epoch": Target(
        {
            "private/kms/ceremonies.py": (
                "check",
                "answer",
                "finish",
                "activate",
                "_approved",
                "_old",
                "_before",
            ),
            f"{CLIENT}key_service.py": ("release", "_ask", "_epoch", "_newest"),
            f"{CLIENT}key_epoch.py": ("rules_of", "_epoch"),
        },
        (
            "tests/private/test_kms_answers.py",
            "tests/private/test_kms_ceremonies.py",
            "tests/private/test_kms.py",
        ),
    ),
}
