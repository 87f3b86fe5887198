"""Ship public roots as data, switched off: an administrator decides whom to trust.

The certificate is public: `nv-agent-root-cert.pem` of github.com/NVIDIA/skills, commit 7149a88.
"""

from django.db import migrations

_PEM = """-----BEGIN CERTIFICATE-----
MIICRTCCAcygAwIBAgIUeJdY3rV86EdvFmG7L8LJBsyQFYkwCgYIKoZIzj0EAwMw
UTELMAkGA1UEBhMCVVMxGzAZBgNVBAoMEk5WSURJQSBDb3Jwb3JhdGlvbjElMCMG
A1UEAwwcTlZJRElBIEFnZW50IENhcGFiaWxpdGllcyBDQTAgFw0yNjA0MDEwMDAw
MDBaGA85OTk5MTIzMTIzNTk1OVowUTELMAkGA1UEBhMCVVMxGzAZBgNVBAoMEk5W
SURJQSBDb3Jwb3JhdGlvbjElMCMGA1UEAwwcTlZJRElBIEFnZW50IENhcGFiaWxp
dGllcyBDQTB2MBAGByqGSM49AgEGBSuBBAAiA2IABAYpiXCDjJ9NT2eSDhyHJVSw
1Tbze18cGG2F/578oWvHxg23eQAhNRYdq88i1iOshZSO6C29doKui5Xpmo/7Ctw9
Sx4PP2RzOmIuOLCuTdNtKcTRwi4GEsd5BAFvWj42M6NjMGEwHQYDVR0OBBYEFItn
oAjjfuCEUvzyvWyI2vOGvwPjMB8GA1UdIwQYMBaAFItnoAjjfuCEUvzyvWyI2vOG
vwPjMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgEGMAoGCCqGSM49BAMD
A2cAMGQCMCwtAjWLaNwgGWNCgdyNoTyvNhqWRECRJV2r3+7w8g0PL6NHLOsbkgE0
9BH95h8XlgIwTaQmbbUh2ChAJ5TA1wRiVDnCcvbzHlZl2jM2FcwQQZlk19LOAbyG
MRixbu2Ww/rj
-----END CERTIFICATE-----
"""
_FINGERPRINT = "6f1bb875b77aea3fc878a7a3237497235c53657601375c0ef4bdcde69e843782"


def ship(apps, schema_editor):
    apps.get_model("skills", "TrustRoot").objects.get_or_create(
        organization=None,
        fingerprint=_FINGERPRINT,
        defaults={
            "name": "NVIDIA Agent Capabilities CA",
            "pem": _PEM,
            "subject": "CN=NVIDIA Agent Capabilities CA,O=NVIDIA Corporation,C=US",
            "required_subject": "CN=NVIDIA Agent Skills Signing *,O=NVIDIA Corporation",
            "source": "https://github.com/NVIDIA/skills (nv-agent-root-cert.pem)",
            "enabled": False,
        },
    )


def withdraw(apps, schema_editor):
    apps.get_model("skills", "TrustRoot").objects.filter(
        organization=None, fingerprint=_FINGERPRINT
    ).delete()


class Migration(migrations.Migration):
    dependencies = [("skills", "0002_guards")]

    operations = [migrations.RunPython(ship, withdraw)]
