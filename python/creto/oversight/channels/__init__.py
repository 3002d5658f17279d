"""Channels: how approvers hear that an act waits, each with a link to the inbox, where they answer.

A channel never decides, and one that fails never holds anything up: the request is in the inbox already.
"""

from creto.oversight.channels._alert import Alert
from creto.oversight.channels._announcements import Announcements
from creto.oversight.channels._email import Email
from creto.oversight.channels._message import Channel, Message
from creto.oversight.channels._slack import Slack
from creto.oversight.channels._webhook import Webhook

__all__ = ["Alert", "Announcements", "Channel", "Email", "Message", "Slack", "Webhook"]
