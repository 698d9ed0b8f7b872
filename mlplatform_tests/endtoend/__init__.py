"""What a user does with the control plane, against any deployment, by its address.

`python -m mlplatform_tests.endtoend --api https://…` asks that one; without an address, everything is started
on this machine first. A deployment that does not answer fails every test, with its address.
"""
