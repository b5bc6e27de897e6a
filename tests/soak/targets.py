"""Which functions ``mutate.py`` deletes from, and the tests that must notice: every verification there is."""

from tests.soak.target import Target
from tests.soak.targets_keys import KEY_SERVICE

ATTESTATION, CLIENT, TLOG = "quotary/attestation/", "quotary/client/", "quotary/tlog/"

TARGETS = {
    "judge": Target({f"{CLIENT}verify.py": ("judge",)}, ("tests/client/test_verify.py",)),
    "bundle": Target(
        {
            f"{CLIENT}verify.py": (
                "verify_bundle",
                "verify_release",
                "verify_proof",
                "verify_absence",
                "_require_known",
            )
        },
        ("tests/client/test_verify.py",),
    ),
    "steps": Target(
        {
            f"{CLIENT}evidence.py": (
                "verify_evidence",
                "verify_binding",
                "require_row",
                "require_floor",
                "_replay",
                "_nonce_root",
                "_require_digest",
            ),
            f"{CLIENT}standing.py": (
                "check_checkpoint",
                "refuse_rollback",
                "bound_age",
                "check_state",
                "check_release",
                "check_records",
                "proven_records",
                "require_active",
                "refuse_revoked",
                "require_rebuilders",
                "included",
                "_audited",
            ),
            f"{CLIENT}devices.py": ("require_devices", "_verified", "_require_reference", "_require_floors"),
            f"{CLIENT}device_rules.py": ("meet_machines",),
            f"{CLIENT}authority.py": (
                "check_authority",
                "_genesis",
                "_delegation",
                "_builders",
                "_follows",
                "_require_owners",
                "_require_unexpired",
                "_signers",
            ),
        },
        (
            "tests/client/test_verify.py",
            "tests/registry/test_a48_traps.py",
            "tests/client/test_verify_replay.py",
            "tests/client/test_verify_platforms.py",
            "tests/client/test_verify_devices.py",
            "tests/client/test_demands.py",
        ),
    ),
    "orders": Target(
        {
            "quotary/statements/order.py": (
                "check_order",
                "check_interval",
                "parse_vkeys",
                "_parse",
                "_content",
                "_check_signature",
            ),
            "quotary/statements/succession.py": ("check_carried", "_revocations", "_floors"),
            f"{CLIENT}inheritance.py": (
                "check_succession",
                "_closing",
                "_check_keys",
                "_check_genesis",
                "_require",
                "_effective",
            ),
        },
        (
            "tests/statements/test_orders.py",
            "tests/statements/test_succession.py",
            "tests/client/test_inheritance.py",
        ),
    ),
    "tdx": Target(
        {
            f"{ATTESTATION}tdx.py": ("verify", "_require_module", "_judge"),
            f"{ATTESTATION}dcap.py": (
                "verify_pck",
                "verify_qe_report",
                "require_machine",
                "_require_identity",
            ),
            f"{ATTESTATION}collateral.py": ("verify_collateral", "_verify_document"),
            f"{ATTESTATION}roots.py": ("select_root", "refuse_simulated"),
            f"{ATTESTATION}certificates.py": ("verify_chain", "require_within", "require_issuer"),
        },
        ("tests/attestation/test_tdx_verify.py",),
    ),
    "levels": Target({f"{ATTESTATION}tcb.py": ()}, ("tests/attestation/test_tdx_verify.py",)),
    "quotes": Target(
        {
            f"{ATTESTATION}tdx.py": ("parse", "_header", "_body_layout"),
            f"{ATTESTATION}dcap.py": (
                "parse",
                "parse_3",
                "_section",
                "_require_type",
                "_require_length",
                "_numbered",
            ),
            f"{ATTESTATION}collateral.py": ("parse",),
            f"{ATTESTATION}certificates.py": ("parse", "parse_chain", "_read"),
            f"{ATTESTATION}intel_json.py": (),
            f"{ATTESTATION}layout.py": ("read", "write"),
            f"{ATTESTATION}der.py": (),
        },
        (
            "tests/attestation/test_der.py",
            "tests/attestation/test_layout.py",
            "tests/attestation/test_certificates.py",
            "tests/attestation/test_tdx_formats.py",
            "tests/attestation/test_tdx_verify.py",
            "tests/attestation/test_sgx.py",
            "tests/hostile/test_encodings.py",
        ),
    ),
    "reports": Target(
        {
            f"{ATTESTATION}snp.py": ("parse", "_signing_key"),
            f"{ATTESTATION}amd.py": ("parse", "_product", "_value", "_number", "_text"),
            f"{ATTESTATION}hcl.py": ("parse", "_hardware", "_key", "_object", "_number"),
        },
        (
            "tests/attestation/test_snp.py",
            "tests/attestation/test_snp_endorsed.py",
            "tests/attestation/test_hcl.py",
        ),
    ),
    "documents": Target(
        {
            f"{ATTESTATION}nitro.py": (
                "parse",
                "_members",
                "_text",
                "_time",
                "_pcrs",
                "_chain",
                "_certificate",
                "_chosen",
            ),
            f"{ATTESTATION}cbor.py": (),
        },
        ("tests/attestation/test_cbor.py", "tests/attestation/test_nitro.py"),
    ),
    "measurements": Target(
        {
            f"{ATTESTATION}spdm.py": (),
            f"{ATTESTATION}devices.py": ("parse_evidence", "_device", "_object"),
            f"{ATTESTATION}rim.py": (
                "parse",
                "_reference",
                "_chain",
                "_base64",
                "_golden",
                "_number",
                "_hash",
            ),
            f"{ATTESTATION}c14n.py": (),
        },
        (
            "tests/attestation/test_nvidia.py",
            "tests/attestation/test_devices.py",
            "tests/attestation/test_rim.py",
            "tests/attestation/test_c14n.py",
        ),
    ),
    "sgx": Target(
        {
            f"{ATTESTATION}sgx.py": ("parse", "verify", "_header", "_judge"),
            f"{ATTESTATION}sgx_appraisal.py": ("meet_requirements", "_configuration"),
        },
        ("tests/attestation/test_sgx.py",),
    ),
    "snp": Target(
        {
            f"{ATTESTATION}snp.py": ("verify", "_require_product"),
            f"{ATTESTATION}amd.py": ("verify_endorsement",),
        },
        ("tests/attestation/test_snp.py", "tests/attestation/test_snp_endorsed.py"),
    ),
    "nitro": Target(
        {f"{ATTESTATION}nitro.py": ("verify", "meet_demands", "require_bound")},
        ("tests/attestation/test_nitro.py",),
    ),
    "nvidia": Target(
        {f"{ATTESTATION}nvidia.py": ("verify", "_firmware_id", "_architecture")},
        ("tests/attestation/test_nvidia.py",),
    ),
    "appraisal": Target(
        {
            f"{CLIENT}appraisal.py": (
                "appraise_evidence",
                "rules_for",
                "_nonces",
                "_answers",
                "_machine",
                "_level",
                "_devices",
                "_left_to_the_row",
            ),
            "verifier/judge.py": ("judge", "_require_platform", "answer_for", "_vector", "_failed_vector"),
        },
        ("tests/verifier/test_judge.py",),
    ),
    "ear": Target(
        {
            f"{CLIENT}ear.py": (
                "verify_result",
                "_require_nonce",
                "_key_of",
                "_statement",
                "_vector",
                "_status",
            )
        },
        ("tests/client/test_ear.py",),
    ),
    "nras": Target(
        {
            f"{ATTESTATION}nras.py": (
                "parse",
                "verify",
                "signing_chain",
                "require_certified",
                "_require_said",
                "_require_fresh",
                "_require_nonce",
                "_require_digests",
                "_require_result",
                "_device",
            ),
            f"{ATTESTATION}jws.py": ("parse", "verify", "time", "unb64url", "_object"),
        },
        ("tests/attestation/test_nras.py", "tests/attestation/test_jws.py"),
    ),
    "ocsp": Target(
        {f"{ATTESTATION}ocsp.py": ("parse", "good_until", "_read", "_require_signed", "_require_named")},
        ("tests/attestation/test_ocsp.py",),
    ),
    "rim": Target(
        {f"{ATTESTATION}rim.py": ("verify", "match", "_require_meta", "_require_golden")},
        ("tests/attestation/test_rim.py",),
    ),
    "appraise": Target(
        {
            f"{ATTESTATION}appraise.py": (
                "meet_requirements",
                "meet_floor",
                "_require_platform",
                "_refuse_bits",
                "_bits",
                "_configuration",
                "_rtmr0",
                "_zero",
                "_require_component",
            ),
            f"{ATTESTATION}snp_appraisal.py": (
                "meet_requirements",
                "meet_demands",
                "meet_floor",
                "_guest_policy",
                "_listed",
                "_platform_info",
                "_mitigations",
            ),
        },
        ("tests/attestation/test_appraise.py", "tests/attestation/test_snp_appraisal.py"),
    ),
    "machine": Target(
        {
            "enclave/boot.py": ("_require_demanded", "_devices", "is_below_floor"),
            "enclave/device.py": ("_parse_devices", "require_confidential"),
            "enclave/hardware.py": ("devices", "_collect", "take_from_registry", "_usable"),
            "enclave/placement.py": ("without_evidence",),
            f"{CLIENT}device_rules.py": ("parse_device_rules", "_floors"),
        },
        (
            "tests/enclave/test_boot_check.py",
            "tests/enclave/test_boot_devices.py",
            "tests/enclave/test_device.py",
            "tests/enclave/test_hardware.py",
            "tests/client/test_policy.py",
        ),
    ),
    "devices": Target(
        {
            f"{ATTESTATION}devices.py": (
                "verify_devices",
                "meet_rules",
                "_meet_rule",
                "_meet_minimum",
                "meet_floor",
                "require_one_machine",
            ),
            f"{ATTESTATION}hcl.py": ("require_bound",),
            f"{ATTESTATION}binding.py": ("verify_report_data",),
            f"{ATTESTATION}p384.py": ("verify_p384",),
        },
        (
            "tests/attestation/test_devices.py",
            "tests/attestation/test_hcl.py",
            "tests/attestation/test_binding.py",
            "tests/attestation/test_p384.py",
        ),
    ),
    "demands": Target({f"{CLIENT}demands.py": ()}, ("tests/client/test_demands.py",)),
    "events": Target(
        {
            f"{ATTESTATION}measure/rtmr0.py": ("check_rtmr0", "_require_slot"),
            f"{ATTESTATION}measure/events.py": ("replay", "verify_replay", "proven_data"),
        },
        (
            "tests/attestation/measure/test_events.py",
            "tests/attestation/test_appraise.py",
            "tests/client/test_verify_replay.py",
        ),
    ),
    "receipt": Target(
        {f"{CLIENT}receipt.py": ("verify_signature", "verify_origin", "verify_exchange", "_same")},
        ("tests/client/test_receipt.py",),
    ),
    "log": Target(
        {
            f"{TLOG}merkle.py": (
                "verify_inclusion",
                "verify_consistency",
                "verify_subtree",
                "_climb",
                "_hash",
            ),
            f"{TLOG}trie.py": ("verify_presence", "verify_absence", "_steps"),
            f"{TLOG}policy.py": ("verify", "_check_log_keys", "_cosignatures"),
            "quotary/ed25519.py": (
                "check_public_key",
                "check_signature",
                "verify",
                "openssl",
                "choose",
                "_strict_y",
            ),
        },
        (
            "tests/tlog/test_merkle.py",
            "tests/tlog/test_trie.py",
            "tests/tlog/test_policy.py",
            "tests/test_ed25519.py",
        ),
    ),
    "audit": Target(
        {
            f"{CLIENT}replay.py": (
                "prove_batch",
                "_proven_tile",
                "_take",
                "_check_prefix",
                "_close",
                "_finish",
                "_check_full_tiles",
                "_same_tile",
            ),
        },
        (
            "tests/client/test_audit.py",
            "tests/client/test_audit_store.py",
            "tests/client/test_opener.py",
            "tests/client/test_monitor.py",
        ),
    ),
    "opener": Target(
        {
            f"{CLIENT}opener.py": (
                "close",
                "forget",
                "settle",
                "opened",
                "verify",
                "ahead",
                "_ask",
                "_keep",
                "_learn",
                "_broken",
                "_begin",
                "_end_with",
                "_work",
                "_all_hold",
            ),
        },
        ("tests/client/test_opener.py",),
    ),
    "state": Target(
        {
            f"{CLIENT}replay_state.py": (
                "expect",
                "absorb",
                "record",
                "held",
                "denial",
                "_in_force",
                "_missing",
            )
        },
        ("tests/client/test_replay_state.py",),
    ),
    "envelope": Target(
        {"quotary/statements/envelope.py": ("parse", "_read", "_as_written", "_in_order", "parse_spki")},
        ("tests/statements/test_envelope.py",),
    ),
    "weights": Target(
        {"enclave/weights.py": ("read_weights", "_read")},
        ("tests/enclave/test_weights.py",),
    ),
    "boot": Target(
        {"enclave/boot.py": ("rehearse", "renew", "_check", "_judged")},
        ("tests/enclave/test_boot_check.py", "tests/enclave/test_boot_devices.py"),
    ),
} | KEY_SERVICE
