from astrogan_van_cittert.plugin import VAN_CITTERT

from astrogan.testing import check_backend


def test_contract():
    check_backend(VAN_CITTERT)
