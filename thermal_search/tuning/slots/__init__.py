"""Trial slots: long-lived Ray Train worker groups through which Ray Tune's trials flow."""
