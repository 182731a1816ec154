"""What pyproject.toml cannot say: a wheel carries config/ as clearclip/config."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["clearclip*"]), "clearclip.config"],
    package_dir={"clearclip.config": "config"},
)
