"""Other services of AWS: what Lambda's clients call of CloudWatch Logs, STS and IAM.

Rule 1: only what Lambda's clients need. Any other call of these services is refused with an error
that names the call.

Rule 2: each service has its own protocol, for answers and for errors: JSON 1.1 with X-Amz-Target
(CloudWatch Logs), the query protocol with XML (STS, IAM).

Rule 3: calls read and change nothing: functions write the logs, and there are no roles to keep.

Reading order:

- logs             CloudWatch Logs, read-only, from the logbook
- logs_request     parameters of CloudWatch Logs, and their bounds
- filter_patterns  patterns of FilterLogEvents
- sts_iam          GetCallerIdentity and GetRole
"""
