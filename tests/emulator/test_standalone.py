"""The program that checks kernels without torch passes on the emulator."""


def test_its_checks_pass(emulator):
    emulator("standalone")(seeds=(0,))
